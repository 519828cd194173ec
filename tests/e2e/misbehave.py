"""Clients that misbehave at the director's API. Usage: misbehave.py SOCKET MODE COUNT USER GROUP

check    COUNT clients at once each have a check of 30,000 new servers of one service made
unread   COUNT clients ask for the whole table and never read the answer
rest     COUNT clients ask once, read the answer and stay
Prints a line for each answer's status; then waits until standard input ends."""

import json
import os
import socket
import sys
import threading

path, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
user, group = int(sys.argv[4]), int(sys.argv[5])
# By itself: an interpreter in root's home is not for others to start.
os.setgroups([])
os.setresgid(group, group, group)
os.setresuid(user, user, user)


def check_body():
    service = {"address": {"protocol": "tcp", "address": "10.1.0.1", "port": 81}}
    spec = {"scheduler": "rr", "netmask": 4294967295}
    commands = [{"add_service": {"service": service, "spec": spec}}]
    for n in range(30_000):
        server = {"address": "10.%d.%d.9" % (n >> 8 & 255, n & 255), "port": n % 7 + 1}
        way = {"forwarding": "route", "weight": 1, "upper_threshold": 0, "lower_threshold": 0}
        add = {"service": service, "server": server, "spec": way}
        commands.append({"add_server": add})
    return json.dumps({"commands": commands, "atomic": True}).encode()


def connect():
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(path)
    return stream


def ask(stream, method, target, body=b""):
    head = "%s %s HTTP/1.1\r\nhost: lvx\r\ncontent-type: application/json\r\n" % (method, target)
    try:
        stream.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    except OSError:
        pass  # It may have been answered before all was said.


def status(stream):
    try:
        answer = stream.recv(64 * 1024)
    except OSError:
        return "none"
    return answer.split(b" ")[1].decode() if answer.startswith(b"HTTP/") else "none"


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def check(body):
    with connect() as stream:
        ask(stream, "POST", "/v1/check", body)
        say(status(stream))


kept = []
if mode == "check":
    body = check_body()
    say("%d bytes" % len(body))
    threads = [threading.Thread(target=check, args=(body,)) for _ in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
for _ in range(count if mode in ("unread", "rest") else 0):
    kept.append(connect())
    ask(kept[-1], "GET", "/v1/table" if mode == "unread" else "/v1/tunables")
    say("asked" if mode == "unread" else status(kept[-1]))
say("done")
sys.stdin.read()
