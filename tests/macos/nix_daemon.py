#!/usr/bin/python3
"""Stands in for `nix` and `nix-daemon --stdio` on a simulated Mac: it greets as Nix 2.34's daemon does, and ends.

The handshake is that of Nix's worker protocol 1.38 (src/libstore/worker-protocol-connection.cc, the server's side). Whom it trusts it
is told by the gate, as the real one is.
"""

import struct
import sys

VERSION = b"2.34.8"
LAST = 0x616C7473


def take(count):
    data = sys.stdin.buffer.read(8 * count)
    if len(data) < 8 * count:
        sys.exit(0)
    return struct.unpack(f"<{count}Q", data)


def put(*values):
    for value in values:
        if isinstance(value, bytes):
            sys.stdout.buffer.write(struct.pack("<Q", len(value)) + value + bytes(-len(value) % 8))
        else:
            sys.stdout.buffer.write(struct.pack("<Q", value))
    sys.stdout.buffer.flush()


def main():
    if "--version" in sys.argv:
        print("nix (Nix) 2.34.8")
        return
    if "--stdio" not in sys.argv:
        sys.exit("this Nix only greets")
    assert take(2)[0] == 0x6E697863
    put(0x6478696F, 1 << 8 | 38)
    for _ in range(take(1)[0]):
        sys.exit("no features are known")
    put(0)
    take(2)
    put(VERSION, 1 if "--force-trusted" in sys.argv else 2, LAST)
    # Until the client hangs up.
    take(1)


main()
