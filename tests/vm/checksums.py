#!/usr/bin/env python3
"""Looks at the TCP and UDP checksums of what comes in.

    checksums.py DEVICE SECONDS     prints right, wrong, and left to hardware

Exit status 0 where none was wrong and at least one was right.
"""

import socket
import struct
import sys
import time

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA = 263, 8
TP_STATUS_CSUMNOTREADY = 8  # linux/if_packet.h: the sender left it to a card that is not there
OUTGOING = 4
TCP, UDP = 6, 17


def ones_sum(data):
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ipv4(packet):
    if struct.unpack(">H", packet[6:8])[0] & 0x3FFF:
        return None, None, True  # a fragment: its checksum is the whole datagram's
    head = (packet[0] & 15) * 4
    payload = packet[head : struct.unpack(">H", packet[2:4])[0]]
    pseudo = packet[12:20] + struct.pack(">BBH", 0, packet[9], len(payload))
    return packet[9], pseudo + payload, ones_sum(packet[:head]) == 0xFFFF


def ipv6(packet):
    payload = packet[40 : 40 + struct.unpack(">H", packet[4:6])[0]]
    pseudo = packet[8:40] + struct.pack(">IHBB", len(payload), 0, 0, packet[6])
    return packet[6], pseudo + payload, True


def judge(frame):
    """None where there is nothing to judge."""
    parse = {0x0800: ipv4, 0x86DD: ipv6}.get(struct.unpack(">H", frame[12:14])[0])
    if not parse:
        return None
    protocol, covered, header_is_right = parse(frame[14:])
    if not header_is_right:
        return False
    return ones_sum(covered) == 0xFFFF if protocol in (TCP, UDP) else None


def left_to_hardware(ancillary):
    return any(
        level == SOL_PACKET and kind == PACKET_AUXDATA and struct.unpack("I", data[:4])[0] & TP_STATUS_CSUMNOTREADY
        for level, kind, data in ancillary
    )


def main(device, seconds):
    watch = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    watch.bind((device, 0))
    watch.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    watch.settimeout(0.3)
    seen, until, first_wrong = {"right": 0, "wrong": 0, "left to hardware": 0}, time.monotonic() + float(seconds), ""
    while time.monotonic() < until:
        try:
            frame, ancillary, _, address = watch.recvmsg(65536, 256)
        except socket.timeout:
            continue
        if address[2] == OUTGOING:
            continue
        verdict = judge(frame)
        if verdict is None:
            continue
        if left_to_hardware(ancillary):
            seen["left to hardware"] += 1
            continue
        seen["right" if verdict else "wrong"] += 1
        if not verdict and not first_wrong:
            first_wrong = f"; the first wrong one: {frame[:80].hex()}"
    print(f"{device}: " + ", ".join(f"{n} {what}" for what, n in seen.items()) + first_wrong)
    sys.exit(0 if seen["right"] and not seen["wrong"] else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
