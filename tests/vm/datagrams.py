#!/usr/bin/env python3
"""Datagrams that are larger than a link's MTU.

    datagrams.py serve PORT             sends each back to where it came from
    datagrams.py ask ADDRESS PORT SIZE COUNT   prints how many came back whole
"""

import os
import socket
import sys


def serve(port):
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", int(port)))
    while True:
        datagram, client = server.recvfrom(65536)
        server.sendto(datagram, client)


def ask(address, port, size, count):
    whole = 0
    for _ in range(int(count)):
        # A socket each, so that each is a connection of its own.
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect((address, int(port)))
            datagram = os.urandom(int(size))
            client.send(datagram)
            try:
                whole += client.recv(65536) == datagram
            except OSError as error:
                print(f"{address}: {error}", file=sys.stderr)
    print(f"{whole} of {count} came back whole")
    sys.exit(0 if whole == int(count) else 1)


{"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
