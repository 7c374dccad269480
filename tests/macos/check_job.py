#!/usr/bin/python3
"""Says what is wrong with property lists of launchd's jobs: each has to be one that a parser other than this project's reads, with no keys but
those of launchd.plist(5), with values of the types that stand there.

The keys and types are those of Apple's manual page launchd.plist(5), as it stands in the sources that Apple published of launchd
(man/launchd.plist.5), with SockPathOwner and SockPathGroup, which the page of later systems has. Keys that we have no use for are left
out, so that using one is a decision here, too.
"""

import os
import plistlib
import sys
import xml.etree.ElementTree


def texts(value):
    return isinstance(value, list) and value and all(isinstance(word, str) for word in value)


def is_path(value):
    return isinstance(value, str) and os.path.isabs(value)


def number(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def flag(value):
    return isinstance(value, bool)


def table(keys):
    def check(value):
        return isinstance(value, dict) and not list(problems(value, keys))

    return check


def each(check):
    return lambda value: isinstance(value, dict) and all(isinstance(key, str) and check(one) for key, one in value.items())


LIMITS = {"NumberOfFiles": number, "NumberOfProcesses": number, "Core": number, "Stack": number}
SOCKET = {
    "SockType": lambda value: value in ("stream", "dgram", "seqpacket"),
    "SockPassive": flag,
    "SockPathName": is_path,
    "SockPathMode": lambda value: number(value) and value <= 0o777,
    "SockPathOwner": number,
    "SockPathGroup": number,
}
JOB = {
    "Label": lambda value: isinstance(value, str) and value,
    "Disabled": flag,
    "UserName": lambda value: isinstance(value, str) and value,
    "GroupName": lambda value: isinstance(value, str) and value,
    "InitGroups": flag,
    "Program": is_path,
    "ProgramArguments": texts,
    "EnvironmentVariables": each(lambda value: isinstance(value, str)),
    "KeepAlive": flag,
    "RunAtLoad": flag,
    "StartInterval": number,
    "ExitTimeOut": number,
    "ThrottleInterval": number,
    "WorkingDirectory": is_path,
    "Umask": number,
    "StandardInPath": is_path,
    "StandardOutPath": is_path,
    "StandardErrorPath": is_path,
    "SoftResourceLimits": table(LIMITS),
    "HardResourceLimits": table(LIMITS),
    "ProcessType": lambda value: value in ("Background", "Standard", "Adaptive", "Interactive"),
    "LowPriorityIO": flag,
    "Sockets": each(table(SOCKET)),
}


def problems(job, keys):
    for key, value in job.items():
        if key not in keys:
            yield f"{key} is no key"
        elif not keys[key](value):
            yield f"{key} is {value!r}"


def of_job(path):
    with open(path, "rb") as file:
        job = plistlib.load(file, fmt=plistlib.FMT_XML)
    # A key that stands twice is one that a parser drops in silence.
    for table_ in xml.etree.ElementTree.parse(path).iter("dict"):
        names = [child.text for child in table_ if child.tag == "key"]
        if len(names) != len(set(names)) or 2 * len(names) != len(table_):
            yield f"a dictionary has keys twice, or without value: {names}"
    yield from problems(job, JOB)
    if os.path.basename(path) != job.get("Label", "") + ".plist":
        yield f"it is not named after its Label {job.get('Label')}"
    program = job.get("ProgramArguments", [job.get("Program", "")])[0]
    if not is_path(program) or program.startswith("/nix/"):
        yield f"its program is {program!r}"
    if "UserName" in job and "GroupName" not in job:
        yield "its group is left to launchd"


def main():
    bad = 0
    for path in sys.argv[1:]:
        for problem in of_job(path):
            print(f"{path}: {problem}")
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
