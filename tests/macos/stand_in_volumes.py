"""The part of the stand-ins that knows volumes and passwords: diskutil(8), security(1), and apfs.util.

Where the forms come from:
  diskutil   diskutil(8): `apfs addVolume CONTAINER FILESYSTEM NAME [-stdinpassphrase] [-nomount]`, `apfs unlockVolume VOLUME [-mountpoint
             PATH] [-stdinpassphrase]`, `apfs lockVolume VOLUME`, `mount -mountPoint PATH VOLUME`, `unmount`, `enableOwnership`, `apfs deleteVolume`; the line "Created new
             APFS Volume" is what Nix's own script looks for; the keys of `info -plist` are those that NixOS/nix-installer, Munki
             and Go's apfs packages read
  security   security(1): `-i` reads commands from standard input, `-w` writes the password alone; 44 is errSecItemNotFound (-25300) as a
             shell sees it, 45 errSecDuplicateItem (-25299)
  apfs.util  synthetic.conf(5), and what Nix's own script says of `-t`: its status tells nothing
"""

import os
import sys

from stand_in import new_uuid, write

# What lies on a volume while it is not mounted.
ASIDE = "/private/volumes"
# What diskutil does not show.
OWN = ("Passphrase",)
# What stood on standard input, read before anything is locked: the other end of the pipe may be another stand-in.
INPUT = []


def read_input(words):
    if "-stdinpassphrase" in words or words == ["-i"]:
        INPUT.append(sys.stdin.read())


def said(text, status=1):
    print(text, file=sys.stderr)
    return status


def volume_named(state, name):
    for volume in state["volumes"]:
        if name and name in (volume["MountPoint"], volume["VolumeUUID"], volume["DeviceIdentifier"], volume["VolumeName"]):
            return volume
    return None


def move(source, target):
    os.makedirs(target, exist_ok=True)
    for entry in os.listdir(source) if os.path.isdir(source) else []:
        os.rename(os.path.join(source, entry), os.path.join(target, entry))


def remove(directory):
    import shutil

    shutil.rmtree(directory, ignore_errors=True)


def mount(volume, path):
    if not os.path.isdir(path):
        return said(f"Volume on {volume['DeviceIdentifier']} failed to mount: {path} does not exist")
    move(os.path.join(ASIDE, volume["VolumeUUID"]), path)
    remove(os.path.join(ASIDE, volume["VolumeUUID"]))
    volume["MountPoint"] = path
    print(f"Volume {volume['VolumeName']} on {volume['DeviceIdentifier']} mounted")
    return 0


def unmount(state, volume):
    if state["open_files"] or state["busy"]:
        return said(f"Volume {volume['VolumeName']} on {volume['DeviceIdentifier']} failed to unmount")
    if volume["MountPoint"]:
        move(volume["MountPoint"], os.path.join(ASIDE, volume["VolumeUUID"]))
        volume["MountPoint"] = ""
    return 0


def add(state, words):
    passphrase = None
    if words[3:] == ["-stdinpassphrase", "-nomount"]:
        passphrase = INPUT.pop().rstrip("\n")
    elif words[3:] != ["-nomount"]:
        return None
    if words[:2] != ["disk3", "APFS"]:
        return said(f"{words[0]} is not an APFS Container disk")
    if passphrase == "":
        return said("A passphrase is required")
    numbers = [int(volume["DeviceIdentifier"].removeprefix("disk3s").split("s")[0]) for volume in state["volumes"]]
    device = f"disk3s{max(numbers) + 1}"
    state["volumes"].append({
        "DeviceIdentifier": device, "VolumeName": words[2], "MountPoint": "", "FilesystemType": "apfs",
        "VolumeUUID": new_uuid(), "GlobalPermissionsEnabled": False, "FileVault": passphrase is not None,
        "WritableVolume": True, "ParentWholeDisk": "disk3", "APFSContainerReference": "disk3", "Internal": True,
        "Locked": False, "Passphrase": passphrase,
    })
    print(f"Will export new encrypted APFS Volume \"{words[2]}\" from APFS Container Reference disk3")
    print(f"Created new APFS Volume {device}\nFinished APFS operation")
    return 0


def unlock(volume, words):
    if words[1:2] != ["-mountpoint"] or words[3:] != ["-stdinpassphrase"]:
        return None
    given = INPUT.pop().rstrip("\n")
    if not volume.get("Locked"):
        return said(f"The APFS Volume {volume['DeviceIdentifier']} is not locked")
    if given != volume.get("Passphrase"):
        return said("Passphrase incorrect or user does not exist")
    volume["Locked"] = False
    return mount(volume, words[2])


def delete(state, volume):
    if unmount(state, volume) != 0:
        return 1
    remove(os.path.join(ASIDE, volume["VolumeUUID"]))
    state["volumes"].remove(volume)
    return 0


def diskutil(state, words):
    """The status, or None for a call that is not known."""
    if words[:2] == ["apfs", "addVolume"]:
        return add(state, words[2:])
    if not words or words[0] == "apfs" and len(words) < 3:
        return None
    name = words[2] if words[0] in ("apfs", "info") and len(words) > 2 else words[-1]
    volume = volume_named(state, name)
    if words[:2] == ["info", "-plist"] and len(words) == 3:
        if volume is None:
            write({"Error": True, "ErrorMessage": f"Could not find disk: {name}"})
            return 1
        return write({key: value for key, value in volume.items() if key not in OWN})
    if volume is None:
        return said(f"Could not find disk: {name}")
    if words[:2] == ["apfs", "deleteVolume"] and len(words) == 3:
        return delete(state, volume)
    if words[:2] == ["apfs", "unlockVolume"]:
        return unlock(volume, words[2:])
    if words[:2] == ["apfs", "lockVolume"] and len(words) == 3:
        if unmount(state, volume) != 0:
            return 1
        volume["Locked"] = volume.get("Passphrase") is not None
        return 0
    if words[:2] == ["mount", "-mountPoint"] and len(words) == 4:
        if volume.get("Locked"):
            return said(f"Volume on {volume['DeviceIdentifier']} is locked")
        return 0 if volume["MountPoint"] == words[2] else mount(volume, words[2])
    if words[:1] == ["unmount"] and len(words) == 2:
        return unmount(state, volume)
    if words[:1] == ["enableOwnership"] and len(words) == 2:
        volume["GlobalPermissionsEnabled"] = True
        return 0
    return None


def options(words):
    """The options of a command of security's with their values; what has none has an empty one; and the keychain."""
    found, rest = {"-T": []}, list(words)
    while rest and rest[0].startswith("-"):
        name = rest.pop(0)
        value = "" if name == "-w" and (len(rest) == 1 or rest[0].startswith("-")) else rest.pop(0)
        if name == "-T":
            found["-T"].append(value)
        else:
            found[name] = value
    return found, rest


def security(state, words):
    """The status, or None for a call that is not known."""
    if words == ["-i"]:
        import shlex

        status = 0
        for line in INPUT.pop().splitlines():
            status = security(state, shlex.split(line))
            if status is None:
                return None
        return status
    if len(words) < 2:
        return None
    given, rest = options(words[1:])
    if len(rest) != 1 or "-a" not in given:
        return None
    items = state["keychains"].get(rest[0], [])
    fits = [item for item in items if item["account"] == given["-a"] and given.get("-s", item["service"]) == item["service"]]
    if words[0] == "add-generic-password":
        if fits:
            return said("security: SecKeychainItemCreateFromContent: The specified item already exists in the keychain.", 45)
        state["keychains"].setdefault(rest[0], []).append({
            "account": given["-a"], "service": given["-s"], "label": given.get("-l", given["-s"]), "kind": given.get("-D", ""),
            "password": given["-w"], "trusted": given["-T"],
        })
        return 0
    if words[0] not in ("find-generic-password", "delete-generic-password"):
        return None
    if not fits:
        return said("security: SecKeychainSearchCopyNext: The specified item could not be found in the keychain.", 44)
    item = fits[0]
    if given.get("-w") == "":
        print(item["password"])
        return 0
    if words[0] == "delete-generic-password":
        items.remove(item)
        print("password has been deleted.")
    print(f'keychain: "{rest[0]}"\nversion: 256\nclass: "genp"\nattributes:')
    print(f'    0x00000007 <blob>="{item["label"]}"\n    0x00000008 <blob>=<NULL>')
    print(f'    "acct"<blob>="{item["account"]}"')
    print('    "desc"<blob>="Encrypted volume password"\n    "prot"<blob>=<NULL>')
    print(f'    "svce"<blob>="{item["service"]}"\n    "type"<uint32>=<NULL>')
    return 0


def synthetic_names():
    with open("/etc/synthetic.conf", encoding="utf-8") as file:
        lines = file.read().splitlines()
    return [line for line in lines if line and not line.startswith("#") and "\t" not in line]


def apfs_util(_state, words):
    if words != ["-t"]:
        return None
    for name in synthetic_names() if os.path.exists("/etc/synthetic.conf") else []:
        os.makedirs(os.path.join("/", name), exist_ok=True)
    return 253


def restart(state, words):
    """No tool of Apple's: what a restart does to volumes and to what synthetic.conf(5) made. Jobs are loaded by the caller."""
    if words:
        return None
    for volume in state["volumes"][1:]:
        unmount(state, volume)
        if volume.get("Passphrase") is not None:
            volume["Locked"] = True
    names = synthetic_names() if os.path.exists("/etc/synthetic.conf") else []
    if os.path.isdir("/nix") and not os.listdir("/nix"):
        os.rmdir("/nix")
    for name in names:
        os.makedirs(os.path.join("/", name), exist_ok=True)
    return 0
