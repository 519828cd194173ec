#!/usr/bin/env python3
"""Connections that live through what is done to the director.

    steady.py COUNT URL...

COUNT connections to each URL ask again and again. Each is opened once: an answer that
does not come, or from another server than the first, is a failure. SIGTERM ends it.
Prints what was seen; exit status 0 only where every question was answered.
"""

import signal
import socket
import sys
import time
from urllib.parse import urlsplit

PATIENCE_S = 60
PAUSE_S = 0.02


class Connection:
    def __init__(self, url):
        place = urlsplit(url)
        self.request = f"GET / HTTP/1.1\r\nHost: {place.hostname}\r\n\r\n".encode()
        self.url = url
        self.socket = socket.create_connection((place.hostname, place.port or 80), PATIENCE_S)
        self.server = None

    def ask(self):
        self.socket.sendall(self.request)

    def answer(self):
        server = read_answer(self.socket)
        if self.server not in (None, server):
            raise OSError(f"{self.server} answered first, now {server}")
        self.server = server


def read_answer(connection):
    received = b""
    while b"\r\n\r\n" not in received:
        received += more_of(connection)
    head, body = received.split(b"\r\n\r\n", 1)
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(f"not a success: {head[:40]!r}")
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += more_of(connection)
    return body.decode().strip()


def more_of(connection):
    some = connection.recv(65536)
    if not some:
        raise OSError("the connection was closed")
    return some


def rounds(connections, is_over):
    answers, longest_s = 0, 0.0
    while not is_over():
        began = time.monotonic()
        for step in (Connection.ask, Connection.answer):
            for connection in connections:
                try:
                    step(connection)
                except OSError as error:
                    seconds = time.monotonic() - began
                    sys.exit(f"{connection.url}: {step.__name__}: {error}, after {answers} answers and {seconds:.1f} s")
        answers += len(connections)
        longest_s = max(longest_s, time.monotonic() - began)
        time.sleep(PAUSE_S)
    return answers, longest_s


def main(count, urls):
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    connections = [Connection(url) for url in urls for _ in range(int(count))]
    print(f"{len(connections)} connections are open", flush=True)
    answers, longest_s = rounds(connections, lambda: over)
    print(f"{len(connections)} connections, {answers} answers, the longest wait {longest_s:.1f} s")
    sys.exit(0 if answers else 1)


main(sys.argv[1], sys.argv[2:])
