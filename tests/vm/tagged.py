#!/usr/bin/env python3
"""Datagrams in a VLAN, by frames of its own: this machine's kernel may have no VLAN devices.

    tagged.py serve DEVICE VLAN                 sends each datagram for port 53 back
    tagged.py ask DEVICE VLAN MAC FROM TO COUNT prints how many came back whole, with a right checksum

Next to it nobody answers ARP: the director's host has these neighbours as permanent ones.
"""

import os
import socket
import struct
import sys
import time

from checksums import ETH_P_ALL, OUTGOING, PACKET_AUXDATA, SOL_PACKET, judge, ones_sum

TP_STATUS_VLAN_VALID = 0x10  # linux/if_packet.h
CLIENT_PORT, SERVICE_PORT = 5555, 53


def open_device(device):
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.bind((device, 0))
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    return wire


def receive(wire):
    """VLAN (None without) and the frame without its tag; None for what this machine sent."""
    frame, ancillary, _, address = wire.recvmsg(65536, 256)
    if address[2] == OUTGOING:
        return None, b""
    vlan = None
    for level, kind, data in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tag = struct.unpack("IIIHHH", data[:18])
            vlan = tag & 0xFFF if status & TP_STATUS_VLAN_VALID else None
    if frame[12:14] == b"\x81\x00":
        vlan, frame = struct.unpack(">H", frame[14:16])[0] & 0xFFF, frame[:12] + frame[16:]
    return vlan, frame


def tagged(frame, vlan):
    return frame[:12] + struct.pack(">HH", 0x8100, vlan) + frame[12:]


def datagram(source, target, ports, payload):
    """An IPv4 packet; ports is (from, to)."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    udp = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
    total = 0xFFFF - ones_sum(addresses + struct.pack(">HH", 17, len(udp)) + udp)
    udp = udp[:6] + struct.pack(">H", total or 0xFFFF) + udp[8:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0x4000, 64, 17, 0) + addresses
    return head[:10] + struct.pack(">H", 0xFFFF - ones_sum(head)) + head[12:] + udp


def for_port(frame, port):
    return frame[12:14] == b"\x08\x00" and frame[23] == 17 and struct.unpack(">H", frame[36:38])[0] == port


def serve(device, vlan):
    wire = open_device(device)
    while True:
        on, frame = receive(wire)
        if on != int(vlan) or not for_port(frame, SERVICE_PORT) or not judge(frame):
            continue
        source, target = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
        length = struct.unpack(">H", frame[38:40])[0]
        back = datagram(target, source, (SERVICE_PORT, struct.unpack(">H", frame[34:36])[0]), frame[42 : 34 + length])
        wire.send(tagged(frame[6:12] + frame[:6] + b"\x08\x00" + back, on))


def ask(device, vlan, mac, source, target, count):
    wire = open_device(device)
    link = bytes.fromhex(mac.replace(":", "")) + wire.getsockname()[4] + b"\x08\x00"
    whole = 0
    for _ in range(int(count)):
        payload = os.urandom(1000)
        wire.send(tagged(link + datagram(source, target, (CLIENT_PORT, SERVICE_PORT), payload), int(vlan)))
        whole += comes_back(wire, int(vlan), payload)
    print(f"{whole} of {count} came back whole")
    sys.exit(0 if whole == int(count) else 1)


def comes_back(wire, vlan, payload):
    until = time.monotonic() + 3
    wire.settimeout(0.3)
    while time.monotonic() < until:
        try:
            on, frame = receive(wire)
        except socket.timeout:
            continue
        if on == vlan and for_port(frame, CLIENT_PORT) and frame[42 : 42 + len(payload)] == payload:
            return judge(frame)
    return False


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
