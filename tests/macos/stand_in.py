#!/usr/bin/env python3
"""Stands in for Apple's tools on a simulated Mac. It is installed under each tool's name; what it answers comes from STATE.

Nothing here was seen on a Mac by the authors. Where the form of each answer comes from:
  dscl       dscl(1); what Puppet's directoryservice provider and npm's passwd-user parse of `dscl -plist . -readall`
  diskutil   diskutil(8); the keys of `diskutil info -plist` that NixOS/nix-installer, Munki and Go's apfs packages read
  launchctl  launchctl(1); `launchctl print` in nix-darwin issue 1033; 113 is the status that it ends with for an unknown service
  security   security(1); 44 is errSecItemNotFound (-25300) as a shell sees it

A call that is not known ends with 64 and is written to UNKNOWN, which the tests look at: no tool answers what it was not made for.
"""

import json
import os
import plistlib
import sys

STATE = "/private/simulated-mac.json"
UNKNOWN = "/private/unknown-calls"


def unknown(words):
    with open(UNKNOWN, "a", encoding="utf-8") as log:
        log.write(" ".join(words) + "\n")
    return 64


def write(value):
    sys.stdout.buffer.write(plistlib.dumps(value))
    return 0


def dscl(state, words):
    # dscl -plist . -readall /Users [ATTRIBUTE ...]; only the attributes that are named, if any is, and a record's name always.
    if words[:3] != ["-plist", ".", "-readall"] or len(words) < 4:
        return unknown(["dscl", *words])
    wanted = set(words[4:])
    records = []
    for name, attributes in state["directory"].get(words[3], {}).items():
        attributes = {"RecordName": [name], **attributes}
        kept = {key: value for key, value in attributes.items() if not wanted or key in wanted}
        # Attributes that Open Directory has no name for have another prefix.
        prefix = {"IsHidden": "dsAttrTypeNative:"}
        records.append({prefix.get(key, "dsAttrTypeStandard:") + key: value for key, value in sorted(kept.items())})
    return write(records)


def diskutil(state, words):
    if len(words) != 3 or words[:2] != ["info", "-plist"]:
        return unknown(["diskutil", *words])
    volume = state["volumes"].get(words[2])
    if volume is None:
        write({"Error": True, "ErrorMessage": f"Could not find disk: {words[2]}"})
        return 1
    return write(volume)


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
    return unknown(["launchctl", *words])


def security(state, words):
    if len(words) != 4 or words[:2] != ["find-generic-password", "-a"]:
        return unknown(["security", *words])
    for item in state["keychains"].get(words[3], []):
        if item["account"] != words[2]:
            continue
        print(f'keychain: "{words[3]}"\nversion: 256\nclass: "genp"\nattributes:')
        print(f'    0x00000007 <blob>="{item["label"]}"\n    0x00000008 <blob>=<NULL>')
        print(f'    "acct"<blob>="{item["account"]}"')
        print('    "desc"<blob>="Encrypted volume password"\n    "prot"<blob>=<NULL>')
        print(f'    "svce"<blob>="{item["service"]}"\n    "type"<uint32>=<NULL>')
        return 0
    print("security: SecKeychainSearchCopyNext: The specified item could not be found in the keychain.", file=sys.stderr)
    return 44


def main():
    tools = {"dscl": dscl, "diskutil": diskutil, "launchctl": launchctl, "security": security}
    name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
    if name not in tools:
        return unknown([name, *words])
    with open(STATE, encoding="utf-8") as state:
        return tools[name](json.load(state), words)


if __name__ == "__main__":
    sys.exit(main())
