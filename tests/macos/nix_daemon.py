#!/usr/bin/python3
"""Stands in for `nix` and `nix-daemon --stdio` on a simulated Mac: it greets as Nix 2.34's daemon does, adds files, pretends to build, and deletes.

The messages are those of Nix's worker protocol 1.38 (src/libstore/worker-protocol-connection.cc and daemon.cc, the server's side). Whom it
trusts it is told by the gate, as the real one is. It builds nothing: it answers as a build under the first build user's uid would, or, when the
simulated Mac says `builds_as_daemon`, as one under its own.
"""

import hashlib
import json
import os
import struct
import sys

VERSION = b"2.34.8"
LAST = 0x616C7473
STORE = "/nix/store"


def number():
    data = sys.stdin.buffer.read(8)
    if len(data) < 8:
        sys.exit(0)
    return struct.unpack("<Q", data)[0]


def text():
    length = number()
    data = sys.stdin.buffer.read(length + -length % 8)
    return data[:length]


def texts():
    return [text() for _ in range(number())]


def put(*values):
    for value in values:
        if isinstance(value, bytes):
            sys.stdout.buffer.write(struct.pack("<Q", len(value)) + value + bytes(-len(value) % 8))
        else:
            sys.stdout.buffer.write(struct.pack("<Q", value))
    sys.stdout.buffer.flush()


def write(path, data, mode):
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def add():
    name, _, _, _ = text(), text(), texts(), number()
    archive = b""
    while (length := number()) != 0:
        archive += sys.stdin.buffer.read(length)
    at = archive.index(b"contents") + 8
    length = struct.unpack("<Q", archive[at : at + 8])[0]
    digest = hashlib.sha256(archive).hexdigest()[:32].replace("e", "z")
    path = f"{STORE}/{digest}-{name.decode()}"
    write(path, archive[at + 8 : at + 8 + length], 0o555)
    put(LAST, path.encode(), b"", b"", 0, 0, 0, 0, 0, b"")


def build():
    text()
    outputs = [[text() for _ in range(4)] for _ in range(number())]
    texts()
    system, _ = text(), text()
    texts()
    for _ in range(number()):
        text(), text()
    number()
    with open("/private/simulated-mac.json", encoding="utf-8") as file:
        state = json.load(file)
    users = state["directory"]["/Users"]
    uid = next(int(user["UniqueID"][0]) for name, user in users.items() if name.startswith("_nixbld"))
    uid = os.getuid() if state.get("builds_as_daemon") else uid
    gid = int(state["directory"]["/Groups"]["nixbld"]["PrimaryGroupID"][0])
    good = system.endswith(b"-darwin") and b"external-builders" in os.environb[b"NIX_CONFIG"]
    if good:
        write(outputs[0][1].decode(), f"Uid={uid}\nGid={gid}\n".encode(), 0o444)
    put(LAST, 0 if good else 3, b"" if good else b"this daemon would build by itself", 0, 0, 0, 0, 0, 0, 0)


def delete():
    number()
    paths = texts()
    for _ in range(5):
        number()
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)
    put(LAST, 0, 0, 0)


def options():
    for _ in range(12):
        number()
    for _ in range(number()):
        text(), text()
    put(LAST)


def is_valid():
    path = text()
    put(LAST, int(os.path.lexists(path)))


OPERATIONS = {
    1: is_valid,
    7: add,
    14: lambda: put(LAST, 0),
    19: options,
    20: delete,
    36: build,
}


def main():
    if "--version" in sys.argv:
        print("nix (Nix) 2.34.8")
        return
    if "--stdio" not in sys.argv:
        sys.exit("this Nix is no more than a daemon")
    assert number() == 0x6E697863
    number()
    put(0x6478696F, 1 << 8 | 38)
    assert texts() == [], "no features are known"
    put(0)
    number(), number()
    put(VERSION, 1 if "--force-trusted" in sys.argv else 2, LAST)
    while True:
        OPERATIONS[number()]()


main()
