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
        # One that is known is not registered anew (`LocalStore::registerValidPaths` in src/libstore/local-store.cc).
        if not base.execute("select 1 from ValidPaths where path = ?", (lines[0],)).fetchone():
            base.execute("insert into ValidPaths (path) values (?)", (lines[0],))
        lines = lines[5 + int(lines[4]) :]
    base.commit()


def install(profile, paths):
    """Makes a generation, unless the last one is the same (`createGeneration` in Nix's src/libstore/profiles.cc)."""
    number = 0
    while os.path.lexists(f"{profile}-{number + 1}-link"):
        number += 1
    if number == 0 or os.readlink(f"{profile}-{number}-link") != paths[0]:
        number += 1
        os.symlink(paths[0], f"{profile}-{number}-link")
    generation = f"{profile}-{number}-link"
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
