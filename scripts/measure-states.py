#!/usr/bin/env python3
"""Measures the connection states of the kernel's IPVS as a black box.

    kernel-vm run DIR 'python3 scripts/measure-states.py > states.tsv'

Run as root where the kernel has IPVS (../shared/oracle/kernel-vm boots one); ORACLE
names oracle.py, whose topology and packets this script uses. It prints one line per
transition, for dataplane/tests/data/states.tsv:

    protocol  table  direction  state  events  next-state  timeout_s

How: a backup sync daemon takes sync messages (version 1), and a message can put a
connection into any state, also into those that no packet sequence reaches. So: put
connections into a state, send each one packet, list. Masquerading gives directions input
and output, direct routing input-only. The message carries state numbers and the listing
prints names: that settles the numbering as well. A message without a timeout gives the
state's own. Then random walks of real packets, from the client's first SYN (or INIT) on,
check that the table foretells each step.
"""
import os
import random
import socket
import struct
import sys
import time

ORACLE = os.environ.get("ORACLE", "/work/shared/oracle/oracle.py")
oracle = {"__name__": "oracle"}
exec(compile(open(ORACLE).read().rsplit("main()", 1)[0], ORACLE, "exec"), oracle)

KERNEL = oracle["KernelSut"]()
NUMBER = {"tcp": 6, "udp": 17, "sctp": 132}
SERVICE = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}
MASQUERADE, DIRECT_ROUTING = "10.1.0.1", "10.1.0.2"
REAL, PORT = "10.2.0.11", 80
FLAG_MASQUERADE, FLAG_DIRECT_NO_OUTPUT = 0, 0x83
BATCH = 256
HELD_S = 250  # the timeout given to a connection before its event: no state's own

TCP_EVENTS = ["".join(f for i, f in enumerate("SFAR") if bits >> i & 1) or "-" for bits in range(16)]
SCTP_EVENTS = list(range(256))


def log(*words):
    print(*words, file=sys.stderr, flush=True)


class Rig:
    """Director, services and raw sockets on both sides."""

    def __init__(self):
        KERNEL.ready()
        oracle["topology"](2, {})
        self.side = {"client": oracle["tap"]("ocl"), "real": oracle["tap"]("ors")}
        KERNEL.sysctl("conn_reuse_mode", 0)
        for kind, flag in SERVICE.items():
            for vip, method in ((MASQUERADE, "-m"), (DIRECT_ROUTING, "-g")):
                self.adm(f"-A {flag} {vip}:{PORT} -s rr")
                self.adm(f"-a {flag} {vip}:{PORT} -r {REAL}:{PORT} {method}")
        self.adm("--start-daemon backup --mcast-interface cl0")
        time.sleep(0.5)

    def adm(self, words):
        done = KERNEL.adm(words.split())
        if done.returncode:
            raise SystemExit(f"ipvsadm {words}: {done.stderr}")
        return done.stdout

    def send(self, side, packet):
        to, source = (oracle["DIR_CL"], oracle["CLIENT_GW"]) if side == "client" else (oracle["DIR_RS"], oracle["real_mac"](11))
        frame = oracle["mac"](to) + oracle["mac"](source) + b"\x08\x00" + packet
        self.side[side].send(frame.ljust(60, b"\0"))

    def event(self, kind, direction, client, port, event, bundled=b""):
        """One packet of a connection: `event` is TCP flags or a chunk type."""
        vip = DIRECT_ROUTING if direction == "input-only" else MASQUERADE
        source, target = (client, port), (vip, PORT)
        if direction == "output":
            source, target = (REAL, PORT), (client, port)
        flags, chunk = (event, 1) if kind == "tcp" else ("", event)
        number, segment = oracle["l4"](kind, *source, *target, {"len": 4}, flags, chunk or 0)
        if bundled:
            body = segment[:8] + b"\0\0\0\0" + segment[12:] + bundled
            segment = body[:8] + struct.pack("<I", oracle["crc32c"](body)) + body[12:]
        self.send("real" if direction == "output" else "client", oracle["l3"](source[0], target[0], number, segment, {}))

    def inject(self, kind, rows):
        """Puts connections (direction, client, port, state) into their states."""
        for at in range(0, len(rows), 30):
            part = rows[at : at + 30]
            body = b"".join(self.sync_row(kind, *row) for row in part)
            message = struct.pack("!BBHBBH", 0, 0, 8 + len(body), len(part), 1, 0) + body
            header = struct.pack("!HHHH", 8848, 8848, 8 + len(message), 0)
            packet = oracle["l3"]("10.1.0.254", "224.0.0.81", 17, header + message, {"ttl": 1})
            frame = oracle["mac"]("01:00:5e:00:00:51") + oracle["mac"](oracle["CLIENT_GW"]) + b"\x08\x00" + packet
            self.side["client"].send(frame)

    @staticmethod
    def sync_row(kind, direction, client, port, state, timeout_s=HELD_S):
        direct = direction == "input-only"
        return (
            struct.pack("!BBH", 0, NUMBER[kind], 36)
            + struct.pack("!I", FLAG_DIRECT_NO_OUTPUT if direct else FLAG_MASQUERADE)
            + struct.pack("!HHHHII", state, port, PORT, PORT, 0, timeout_s)
            + oracle["ip"](client)
            + oracle["ip"](DIRECT_ROUTING if direct else MASQUERADE)
            + oracle["ip"](REAL)
        )

    def listing(self):
        """(protocol, client:port) -> (state, seconds left)."""
        rows = {}
        for line in self.adm("-L -n -c").splitlines()[2:]:
            protocol, left, state, source = line.split()[:4]
            minutes, seconds = left.split(":")
            rows[protocol.lower(), source] = (state, int(minutes) * 60 + int(seconds))
        return rows


def client_of(index, direction):
    return f"10.9.{4 if direction == 'input-only' else 3}.{1 + index % 200}", 1000 + index


def states(rig, kind, most=20):
    """[(name, own timeout)] by state number. The daemon refuses numbers past the last."""
    seen = {}
    for own in (HELD_S, 0):
        for state in range(most):  # one message each: a refused row ends its message
            rig.inject(kind, [("input", f"10.9.9.{1 + state}", 7000 + state, state, own)])
        time.sleep(0.1)
        listed = rig.listing()
        for state in range(most):
            if row := listed.get((kind, f"10.9.9.{1 + state}:{7000 + state}")):
                seen.setdefault(state, [row[0], 1])[1] = 1 if own else row[1]
    if sorted(seen) != list(range(len(seen))) or not seen:
        raise SystemExit(f"states {seen}: did the backup daemon take the messages? {rig.adm('-L --daemon')}")
    return [tuple(seen[state]) for state in sorted(seen)]


def measure(rig, kind, table, names, events):
    """{(direction, state, event): (next, seconds left)}; what went astray is repeated."""
    wanted = [(d, s, e) for d in ("input", "output", "input-only") for s in range(len(names)) for e in events]
    result, tries = {}, 0
    while wanted:
        tries += 1
        missing = []
        for at in range(0, len(wanted), BATCH):
            batch = [(d, *client_of(i, d), s, e) for i, (d, s, e) in enumerate(wanted[at : at + BATCH])]
            rig.inject(kind, [row[:4] for row in batch])
            time.sleep(0.1)
            before = rig.listing()
            for d, client, port, _, event in batch:
                rig.event(kind, d, client, port, event)
            time.sleep(0.05)
            after = rig.listing()
            for d, client, port, state, event in batch:
                key = (kind, f"{client}:{port}")
                was, now = before.get(key), after.get(key)
                if not was or was[0] != names[state] or was[1] < HELD_S - 5 or not now or now[1] > 905:
                    missing.append((d, state, event))
                else:
                    result[d, state, event] = (now[0], now[1])
        log(f"{kind} {table}: {len(result)} measured, {len(missing)} to repeat")
        wanted = missing
        if tries > 4:
            raise SystemExit(f"cannot measure {wanted[:5]} ...")
    return result


def nearest(timeout_s):
    """The listing shows what is left: round up to what a state can have."""
    return next((known for known in (2, 4, 10, 30, 60, 61, 120, 250, 300, 900) if timeout_s < known <= timeout_s + 6), timeout_s)


def ranges(events):
    """0,1,2,7 -> 0-2,7"""
    parts, run = [], []
    for event in [*events, None]:
        if run and (event is None or event != run[-1] + 1):
            parts.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}")
            run = []
        if event is not None:
            run.append(event)
    return ",".join(parts)


def own_timeouts(found, result):
    """{name: timeout_s}: the longest time ever seen left of a state, rounded up."""
    most = dict(found)
    for after, left in result.values():
        most[after] = max(most[after], left)
    return {name: nearest(left) for name, left in most.items()}


def write(kind, table, names, own, result):
    if table == "plain":
        for number, name in enumerate(names):
            print(kind, "number", "-", name, number, name, own[name], sep="\t", flush=True)
    groups = {}
    for (direction, state, event), (after, left) in result.items():
        if not own[after] - 6 <= left < own[after]:
            log(f"  {kind} {table} {direction} {names[state]} {event}: {after} with {left} s left of {own[after]}?")
        groups.setdefault((direction, state, after), []).append(event)
    for (direction, state, after), events in groups.items():
        label = ranges(events) if kind == "sctp" else ",".join(events)
        print(kind, table, direction, names[state], label, after, own[after], sep="\t", flush=True)


def walk(rig, kind, table, names, events, result, base, walks=200, steps=12):
    """Real packets only, from the first one on: does the table foretell them?"""
    first = "S" if kind == "tcp" else 1
    likely = {"tcp": ["S", "SA", "A", "FA", "FA", "A", "R"], "sctp": [1, 2, 10, 11, 0, 7, 8, 14, 6, 9, 3]}[kind]
    ends = []
    for i in range(walks):
        ways = ("input-only",) if i % 3 == 0 else ("input", "output")
        ends.append((ways, f"10.9.{base}.{1 + i}", 9000 + i))
    for ways, client, port in ends:
        rig.event(kind, ways[0], client, port, first)
    time.sleep(0.05)
    before, checked, wrong = rig.listing(), 0, 0
    for _ in range(steps):
        sent = []
        for ways, client, port in ends:
            direction, event = random.choice(ways), random.choice(likely + random.sample(events, 2))
            rig.event(kind, direction, client, port, event)
            sent.append((direction, event, f"{client}:{port}"))
        time.sleep(0.05)
        after = rig.listing()
        for direction, event, source in sent:
            was, now = before.get((kind, source)), after.get((kind, source))
            if was and now and was[1] > 1:
                checked += 1
                foretold = result[direction, names.index(was[0]), event][0]
                if foretold != now[0]:
                    wrong += 1
                    log(f"  walk: {kind} {table} {direction} {was[0]} {event}: {now[0]}, the table says {foretold}")
        before = after
    log(f"{kind} {table}: random walks: {checked} steps checked, {wrong} differ")


def main():
    random.seed(1)
    rig = Rig()
    print("# Measured on Linux", os.uname().release, "by scripts/measure-states.py")
    print("# protocol\ttable\tdirection\tstate\tevents\tnext\ttimeout_s")
    for table in ("plain", "secure"):
        KERNEL.sysctl("secure_tcp", 3 if table == "secure" else 0)
        time.sleep(3)
        explore(rig, "tcp", table, TCP_EVENTS, 20 if table == "plain" else 21)
    explore(rig, "udp", "plain", ["-"], None)
    explore(rig, "sctp", "plain", SCTP_EVENTS, 22)


def explore(rig, kind, table, events, walkers):
    found = states(rig, kind)
    names = [name for name, _ in found]
    result = measure(rig, kind, table, names, events)
    write(kind, table, names, own_timeouts(found, result), result)
    if walkers:
        walk(rig, kind, table, names, events, result, walkers)


if __name__ == "__main__":
    main()
