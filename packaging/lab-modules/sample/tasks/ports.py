#!/usr/bin/env python3
"""Tries TCP ports. Parameters come as JSON on standard input; the result is one JSON object."""

import json
import socket
import sys

FAMILIES = {"any": socket.AF_UNSPEC, "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}


def is_open(host, port, family, timeout):
    """Whether something accepts a connection on the port."""
    for kind, type_, protocol, _, address in socket.getaddrinfo(
        host, port, family, socket.SOCK_STREAM
    ):
        with socket.socket(kind, type_, protocol) as sock:
            sock.settimeout(timeout)
            if sock.connect_ex(address) == 0:
                return True
    return False


def main():
    params = json.load(sys.stdin)
    family = FAMILIES[params["family"]]
    timeout = params.get("timeout", 1)
    try:
        states = {
            port: is_open(params["host"], port, family, timeout) for port in params["ports"]
        }
    except OSError as error:
        details = {"host": params["host"]}
        problem = {"kind": "sample/unknown-host", "msg": str(error), "details": details}
        json.dump({"_error": problem}, sys.stdout)
        return 1
    json.dump(
        {
            "host": params["host"],
            "open": [port for port, is_open in states.items() if is_open],
            "closed": [port for port, is_open in states.items() if not is_open],
        },
        sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
