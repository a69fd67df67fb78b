#!/usr/bin/env python3
"""Judges a password by length and kinds of characters. The password itself is never printed."""

import json
import string
import sys

KINDS = [string.ascii_lowercase, string.ascii_uppercase, string.digits, string.punctuation]


def main():
    params = json.load(sys.stdin)
    password = params["password"]
    kinds = sum(any(character in kind for character in password) for kind in KINDS)
    faults = []
    if len(password) < params["least"]:
        faults.append("shorter than %d characters" % params["least"])
    if params["user"] in password.lower():
        faults.append("contains the name of the user")
    result = {"user": params["user"], "length": len(password), "kinds": kinds, "faults": faults}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
