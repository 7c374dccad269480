"""Stands in for Apple's tools on a simulated Mac: LAUNCHER calls it under each tool's name. What it answers comes from STATE.

Nothing here was seen on a Mac by the authors. Where the form of each answer comes from:
  dscl       dscl(1); what Puppet's directoryservice provider and npm's passwd-user parse of `dscl -plist . -readall`; 56 and
             eDSRecordNotFound for what is not there are what Puppet, Chef and NixOS/nix-installer look for
  launchctl  launchctl(1); `launchctl print` in nix-darwin issue 1033; 113 is the status that it ends with for an unknown service, 3 and
             5 (ESRCH, EIO) are those of `bootout` and `bootstrap` in NixOS/nix's issues
  tmutil     tmutil(8): `isexcluded` writes [Excluded] or [Included], blanks, and the path, as in Apple's own examples and
             apple.stackexchange.com/questions/387003
  lsof       lsof(8), "output for other programs"
diskutil, security and apfs.util are in stand_in_volumes.py.

launchctl also does what launchd would: a job with `Sockets` and `UserName` is started with its socket. The socket is passed as
systemd would pass it (LISTEN_FDS), since the programs here are Linux's; `--launchd NAME` is taken off the command line for that. Jobs of
root's are not started, and count as running.

A call that is not known ends with 64 and is written to UNKNOWN, which the tests look at: no tool answers what it was not made for.
"""

# Hundreds of these run in a test: what few of them need is imported where it is needed, and what takes Python long is done without (json's
# reader and plistlib take longer to load than all the rest).
import fcntl
import os
import sys

STATE = "/private/simulated-mac.json"
UNKNOWN = "/private/unknown-calls"
# Every call, as other users of the machine would see it with ps(1).
CALLS = "/private/calls"
# Programs of jobs that were loaded; they run when what is known was written down.
STARTED = []


def unknown(words):
    with open(UNKNOWN, "a", encoding="utf-8") as log:
        log.write(" ".join(words) + "\n")
    return 64


def as_plist(value):
    """A property list's element, as plist(5) has it."""
    if isinstance(value, bool):
        return "<true/>" if value else "<false/>"
    if isinstance(value, dict):
        return "<dict>" + "".join(f"<key>{name}</key>{as_plist(inner)}" for name, inner in value.items()) + "</dict>"
    if isinstance(value, list):
        return "<array>" + "".join(map(as_plist, value)) + "</array>"
    if not isinstance(value, str):
        raise TypeError(value)
    return "<string>" + value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") + "</string>"


def write(value):
    print('<?xml version="1.0" encoding="UTF-8"?>')
    print('<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">')
    print(f'<plist version="1.0">{as_plist(value)}</plist>')
    return 0


def read_state():
    """JSON is Python but for three words."""
    with open(STATE, encoding="utf-8") as file:
        return eval(file.read(), {"__builtins__": {}, "true": True, "false": False, "null": None})


def new_uuid():
    import uuid

    return str(uuid.uuid4()).upper()


def volumes():
    import stand_in_volumes

    return stand_in_volumes


def read_plist(path):
    import plistlib

    with open(path, "rb") as file:
        return plistlib.load(file)


def named(attributes):
    # Attributes that Open Directory has no name for have another prefix.
    prefix = {"IsHidden": "dsAttrTypeNative:"}
    return {prefix.get(key, "dsAttrTypeStandard:") + key: value for key, value in sorted(attributes.items())}


def record(state, path):
    kind, _, name = path.rpartition("/")
    records = state["directory"].setdefault(kind, {})
    if name not in records:
        print("<dscl_cmd> DS Error: -14136 (eDSRecordNotFound)", file=sys.stderr)
        return records, name, None
    return records, name, records[name]


def dscl(state, words):
    if words[:3] == ["-plist", ".", "-read"] and len(words) == 4:
        _, name, found = record(state, words[3])
        if found is None:
            return 56
        made = {"AppleMetaNodeLocation": ["/Local/Default"], "RecordType": ["dsRecTypeStandard:Users"]}
        return write(named({**found, **made, "RecordName": [name], "_writers_passwd": [name]}))
    if words[:2] == [".", "-create"] and len(words) >= 3:
        records, name, found = record(state, words[2])
        if found is None:
            found = records.setdefault(name, {"GeneratedUID": [new_uuid()]})
        if len(words) > 3:
            found[words[3]] = words[4:]
        return 0
    if words[:2] == [".", "-delete"] and len(words) == 3:
        records, name, found = record(state, words[2])
        if found is None:
            return 56
        del records[name]
        return 0
    # dscl -plist . -readall /Users [ATTRIBUTE ...]; only the attributes that are named, if any is, and a record's name always.
    if words[:3] != ["-plist", ".", "-readall"] or len(words) < 4:
        return unknown(["dscl", *words])
    wanted = set(words[4:])
    records = []
    for name, attributes in state["directory"].get(words[3], {}).items():
        attributes = {"RecordName": [name], **attributes}
        kept = {key: value for key, value in attributes.items() if not wanted or key in wanted}
        records.append(named(kept))
    return write(records)


def launchctl(state, words):
    if words == ["print-disabled", "system"]:
        print("disabled services = {")
        for label, disabled in sorted(state["disabled"].items()):
            print(f'\t"{label}" => {"disabled" if disabled else "enabled"}')
        print("}")
        return 0
    if len(words) == 2 and words[0] == "print" and words[1].startswith("system/"):
        label = words[1].removeprefix("system/")
        job = state["jobs"].get(label)
        if job is None:
            print(f'Could not find service "{label}" in domain for system', file=sys.stderr)
            return 113
        running = job.get("pid") is not None
        print(f"system/{label} = {{")
        print(f"\tactive count = {int(running)}\n\tpath = {job['path']}\n\ttype = LaunchDaemon")
        print(f"\tstate = {'running' if running else 'not running'}\n")
        print("\tprogram = /bin/sh\n\targuments = {\n\t\t/bin/sh\n\t\t-c\n\t}\n")
        print("\tdefault environment = {\n\t\tPATH => /usr/bin:/bin:/usr/sbin:/sbin\n\t}\n")
        print("\tdomain = system\n\tminimum runtime = 10\n\texit timeout = 5\n\truns = 1")
        if running:
            print(f"\tpid = {job['pid']}")
        print("}")
        return 0
    if len(words) == 2 and words[0] in ("enable", "disable") and words[1].startswith("system/"):
        state["disabled"][words[1].removeprefix("system/")] = words[0] == "disable"
        return 0
    if len(words) == 2 and words[0] == "bootout" and words[1].startswith("system/"):
        job = state["jobs"].pop(words[1].removeprefix("system/"), None)
        if job is None:
            print("Boot-out failed: 3: No such process", file=sys.stderr)
            return 3
        end(job)
        return 0
    if len(words) == 3 and words[:2] == ["bootstrap", "system"]:
        plist = read_plist(words[2])
        label = plist["Label"]
        if label in state["jobs"] or state["disabled"].get(label):
            print("Bootstrap failed: 5: Input/output error", file=sys.stderr)
            return 5
        load(state, words[2], plist)
        return 0
    if len(words) == 2 and words[0] == "kickstart" and words[1].removeprefix("system/") in state["jobs"]:
        path = state["jobs"][words[1].removeprefix("system/")]["path"]
        load(state, path, read_plist(path))
        return 0
    return unknown(["launchctl", *words])


def load(state, path, plist):
    state["next_pid"] += 1
    job = {"path": path, "pid": state["next_pid"]}
    state["jobs"][plist["Label"]] = job
    arguments = plist.get("ProgramArguments", [])
    if "UserName" in plist and "Sockets" in plist:
        job.update(start(state, plist))
    elif "diskutil" in " ".join(arguments):
        # What mounts a volume is run, and has ended when launchctl returns.
        job["pid"] = None
        STARTED.append(arguments)
    words = " ".join(arguments).split()
    if "--work" in words:
        # The build broker's, which is not started: what it makes at its start, and leaves.
        lock = os.path.join(words[words.index("--work") + 1], "lock")
        if os.path.isdir(os.path.dirname(lock)):
            os.close(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))


def restart(state, words):
    """No tool of Apple's: the machine starts anew."""
    for job in state["jobs"].values():
        end(job)
    state["jobs"] = {}
    if volumes().restart(state, words) is None:
        return None
    folder = "/Library/LaunchDaemons"
    for name in sorted(os.listdir(folder)):
        launchctl(state, ["bootstrap", "system", os.path.join(folder, name)])
    return 0


def start(state, plist):
    import socket

    (listener,) = plist["Sockets"].values()
    path = listener["SockPathName"]
    if os.path.lexists(path):
        os.unlink(path)
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    os.chmod(path, listener["SockPathMode"])
    made.listen(128)
    user = state["directory"]["/Users"][plist["UserName"]]
    group = state["directory"]["/Groups"][plist["GroupName"]]
    words = plist["ProgramArguments"]
    at = words.index("--launchd")
    log = os.open(plist["StandardErrorPath"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(log, 2)
        os.dup2(made.fileno(), 3)
        os.closerange(4, 64)
        os.setgroups([])
        os.setgid(int(group["PrimaryGroupID"][0]))
        # As a launchd would that does not do what its manual page says.
        if not state.get("ignores_user_name"):
            os.setuid(int(user["UniqueID"][0]))
        own = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        os.execve(words[0], words[:at] + words[at + 2 :], {**own, **plist["EnvironmentVariables"]})
    return {"pid": pid, "socket": path}


def end(job):
    import signal
    import time

    if "socket" not in job:
        return
    try:
        os.kill(job["pid"], signal.SIGTERM)
        for _ in range(200):
            os.kill(job["pid"], 0)
            time.sleep(0.01)
        os.kill(job["pid"], signal.SIGKILL)
    except ProcessLookupError:
        pass


def tmutil(state, words):
    excluded = state["excluded"]
    if len(words) == 2 and words[0] == "isexcluded":
        print(f"[{'Excluded' if words[1] in excluded else 'Included'}]    {words[1]}")
        return 0
    if len(words) != 3 or words[1] != "-p" or words[0] not in ("addexclusion", "removeexclusion"):
        return unknown(["tmutil", *words])
    if state.get("no_full_disk_access"):
        print(f"tmutil: {words[0]} requires Full Disk Access privileges.", file=sys.stderr)
        return 80
    if words[0] == "addexclusion":
        excluded.append(words[2])
    else:
        excluded.remove(words[2])
    return 0


def lsof(state, words):
    if words != ["-F", "pcn", "+f", "--", "/nix"]:
        return unknown(["lsof", *words])
    # A daemon of an installer's runs from the volume. The kernel calls it by what its link leads to.
    daemons = [state["jobs"].get(label, {}) for label in ("org.nixos.nix-daemon", "systems.determinate.nix-daemon")]
    running = [job["pid"] for job in daemons if job.get("pid") and "socket" not in job]
    for pid in running if os.path.isdir("/nix/store") else []:
        print(f"p{pid}\ncnix\nftxt\nn/nix/store/{'0' * 32}-nix-2.34.8/bin/nix")
    for process in state["open_files"]:
        print(f"p{process['pid']}\nc{process['command']}\nfcwd\nn{process['file']}")
    return 0 if state["open_files"] or running else 1


def main():
    tools = {
        "dscl": dscl,
        "diskutil": lambda *call: volumes().diskutil(*call),
        "launchctl": launchctl,
        "security": lambda *call: volumes().security(*call),
        "lsof": lsof,
        "tmutil": tmutil,
        "apfs.util": lambda *call: volumes().apfs_util(*call),
        "restart-simulated-mac": restart,
    }
    name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
    with open(CALLS, "a", encoding="utf-8") as log:
        log.write(" ".join([name, *words]) + "\n")
    if name not in tools:
        return unknown([name, *words])
    if name == "launchctl":
        # launchd is another process: it finishes what it was asked for when launchctl is killed.
        asked = os.fork()
        if asked:
            return os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1])
        os.setsid()
    status = answer(name, tools[name], words)
    if name == "launchctl":
        sys.stdout.flush()
        os._exit(status)
    return status


def answer(name, tool, words):
    if name in ("diskutil", "security"):
        volumes().read_input(words)
    lock = open(STATE + ".lock", "w", encoding="utf-8")
    fcntl.flock(lock, fcntl.LOCK_EX)
    state = read_state()
    status = tool(state, words)
    if status is None:
        return unknown([name, *words])
    if state != read_state():
        import json

        with open(STATE + ".new", "w", encoding="utf-8") as file:
            json.dump(state, file, sort_keys=True)
        os.rename(STATE + ".new", STATE)
    sys.stdout.flush()
    lock.close()
    if STARTED:
        import subprocess
    for arguments in STARTED:
        subprocess.run(arguments, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return status
