#!/usr/bin/env python3
"""Runs a command without a system call: `without-call.py af-xdp|bpf COMMAND...`

af-xdp: socket(AF_XDP, ...) fails with EAFNOSUPPORT, as on a kernel built without it.
bpf: bpf(...) fails with EPERM, as under podman's seccomp profile.
"""
import ctypes, errno, os, platform, struct, sys

AF_XDP, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 44, 22, 2, 38
SOCKET, BPF = {"x86_64": (41, 321), "aarch64": (198, 280)}[platform.machine()]
ALLOW, FAIL = 0x7fff0000, 0x00050000
# Classic BPF over struct seccomp_data: the call's number at 0, the low half of its first argument at 16.
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
programs = {
    "af-xdp": ((LOAD, 0, 0, 0), (IF_EQUAL, 0, 3, SOCKET), (LOAD, 0, 0, 16), (IF_EQUAL, 0, 1, AF_XDP),
               (RETURN, 0, 0, FAIL | errno.EAFNOSUPPORT), (RETURN, 0, 0, ALLOW)),
    "bpf": ((LOAD, 0, 0, 0), (IF_EQUAL, 0, 1, BPF), (RETURN, 0, 0, FAIL | errno.EPERM), (RETURN, 0, 0, ALLOW)),
}
program = b"".join(struct.pack("HBBI", *i) for i in programs[sys.argv[1]])


class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


libc = ctypes.CDLL(None, use_errno=True)
filters = Program(len(program) // 8, program)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filters)):
    sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[2], sys.argv[2:])
