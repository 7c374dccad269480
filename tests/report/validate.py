#!/usr/bin/python3
"""Holds documents against the schema of their kind: validate.py SCHEMAS DOCUMENT...

An implementation of JSON schema that shares nothing with the one that made the schemas. Exit status 1 when one does not fit.
"""
import json
import pathlib
import sys

from jsonschema import Draft202012Validator


def complaints(schemas, document):
    schema = json.loads((schemas / f"{document['kind']}.json").read_text())
    Draft202012Validator.check_schema(schema)
    for error in Draft202012Validator(schema).iter_errors(document):
        yield f"/{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def main(schemas, *documents):
    bad = False
    for name in documents:
        for complaint in complaints(pathlib.Path(schemas), json.loads(pathlib.Path(name).read_text())):
            bad = True
            print(f"{name}: {complaint}", file=sys.stderr)
    return 1 if bad else 0


sys.exit(main(*sys.argv[1:]))
