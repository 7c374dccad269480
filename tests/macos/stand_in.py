#!/usr/bin/env python3
"""Stands in for Apple's tools on a simulated Mac. It is installed under each tool's name; what it answers comes from STATE.

Nothing here was seen on a Mac by the authors. Where the form of each answer comes from:
  dscl       dscl(1); what Puppet's directoryservice provider and npm's passwd-user parse of `dscl -plist . -readall`; 56 and
             eDSRecordNotFound for what is not there are what Puppet, Chef and NixOS/nix-installer look for
  launchctl  launchctl(1); `launchctl print` in nix-darwin issue 1033; 113 is the status that it ends with for an unknown service, 3 and
             5 (ESRCH, EIO) are those of `bootout` and `bootstrap` in NixOS/nix's issues
  lsof       lsof(8), "output for other programs"
diskutil, security and apfs.util are in stand_in_volumes.py.

A call that is not known ends with 64 and is written to UNKNOWN, which the tests look at: no tool answers what it was not made for.
"""

import json
import os
import plistlib
import subprocess
import sys
import uuid

import stand_in_volumes as volumes

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


def write(value):
    sys.stdout.buffer.write(plistlib.dumps(value))
    return 0


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
            found = records.setdefault(name, {"GeneratedUID": [str(uuid.uuid4()).upper()]})
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


def start(state, label, path):
    state["next_pid"] += 1
    state["jobs"][label] = {"path": path, "pid": state["next_pid"]}
    with open(path, "rb") as file:
        arguments = plistlib.load(file).get("ProgramArguments", [])
    # Of all programs, only what mounts a volume is run for real, and has ended when launchctl returns.
    if "diskutil" in " ".join(arguments):
        state["jobs"][label]["pid"] = None
        STARTED.append(arguments)


def restart(state, words):
    if volumes.restart(state, words) is None:
        return None
    state["jobs"] = {}
    folder = "/Library/LaunchDaemons"
    for name in sorted(os.listdir(folder)):
        launchctl(state, ["bootstrap", "system", os.path.join(folder, name)])
    return 0


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
    if len(words) == 2 and words[0] == "bootout" and words[1].startswith("system/"):
        if state["jobs"].pop(words[1].removeprefix("system/"), None) is None:
            print("Boot-out failed: 3: No such process", file=sys.stderr)
            return 3
        return 0
    if len(words) == 3 and words[:2] == ["bootstrap", "system"]:
        with open(words[2], "rb") as file:
            label = plistlib.load(file)["Label"]
        if label in state["jobs"] or state["disabled"].get(label):
            print("Bootstrap failed: 5: Input/output error", file=sys.stderr)
            return 5
        start(state, label, words[2])
        return 0
    if len(words) == 2 and words[0] == "kickstart" and words[1].removeprefix("system/") in state["jobs"]:
        label = words[1].removeprefix("system/")
        start(state, label, state["jobs"][label]["path"])
        return 0
    return unknown(["launchctl", *words])


def lsof(state, words):
    if words != ["-F", "pcn", "+f", "--", "/nix"]:
        return unknown(["lsof", *words])
    for process in state["open_files"]:
        print(f"p{process['pid']}\nc{process['command']}\nfcwd\nn{process['file']}")
    return 0 if state["open_files"] else 1


def main():
    tools = {
        "dscl": dscl, "diskutil": volumes.diskutil, "launchctl": launchctl, "security": volumes.security, "lsof": lsof,
        "apfs.util": volumes.apfs_util, "restart-simulated-mac": restart,
    }
    name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
    with open(CALLS, "a", encoding="utf-8") as log:
        log.write(" ".join([name, *words]) + "\n")
    if name not in tools:
        return unknown([name, *words])
    with open(STATE, encoding="utf-8") as file:
        state = json.load(file)
    before = json.dumps(state, sort_keys=True)
    status = tools[name](state, words)
    if status is None:
        return unknown([name, *words])
    if json.dumps(state, sort_keys=True) != before:
        with open(STATE + ".new", "w", encoding="utf-8") as file:
            json.dump(state, file, sort_keys=True)
        os.rename(STATE + ".new", STATE)
    sys.stdout.flush()
    for arguments in STARTED:
        subprocess.run(arguments, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return status


if __name__ == "__main__":
    sys.exit(main())
