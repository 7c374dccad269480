#!/usr/bin/python3
"""Stands in for `nix-store --load-db` and `nix-env --profile P --install PATH ...` of an archive on a simulated Mac.

The registration's form is that of Nix's `decodeValidPathInfo` (src/libstore/store-api.cc), the database's that of its
src/libstore/schema.sql as far as this tool reads it.
"""

import os
import sqlite3
import sys

BASE = "/nix/var/nix/db/db.sqlite"
SCHEMA = """
create table if not exists ValidPaths (id integer primary key autoincrement not null, path text unique not null);
create table if not exists Refs (referrer integer not null, reference integer not null, primary key (referrer, reference));
"""


def load():
    lines = sys.stdin.read().split("\n")
    base = sqlite3.connect(BASE)
    base.executescript(SCHEMA)
    while lines and lines[0]:
        base.execute("insert or ignore into ValidPaths (path) values (?)", (lines[0],))
        lines = lines[5 + int(lines[4]) :]
    base.commit()


def install(profile, paths):
    number = 1
    while os.path.lexists(f"{profile}-{number}-link"):
        number += 1
    generation = f"{profile}-{number}-link"
    os.symlink(paths[0], generation)
    os.symlink(os.path.basename(generation), f"{profile}.new")
    os.rename(f"{profile}.new", profile)


if os.getuid() == 0:
    sys.exit("root must not run what lies in /nix")
if sys.argv[1:] == ["--load-db"]:
    load()
elif sys.argv[1] == "--profile" and sys.argv[3] == "--install":
    install(sys.argv[2], sys.argv[4:])
else:
    sys.exit(f"this Nix cannot {sys.argv[1:]}")
