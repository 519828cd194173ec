#!/usr/bin/env python3
"""Runs a command for which socket(AF_XDP, ...) fails with EAFNOSUPPORT, as on a kernel built without it."""
import ctypes, errno, os, platform, struct, sys

AF_XDP, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 44, 22, 2, 38
SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
ALLOW, FAIL = 0x7fff0000, 0x00050000 | errno.EAFNOSUPPORT
# Classic BPF over struct seccomp_data: the call's number at 0, the low half of its first argument at 16.
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
program = b"".join(struct.pack("HBBI", *i) for i in (
    (LOAD, 0, 0, 0), (IF_EQUAL, 0, 3, SOCKET), (LOAD, 0, 0, 16), (IF_EQUAL, 0, 1, AF_XDP),
    (RETURN, 0, 0, FAIL), (RETURN, 0, 0, ALLOW)))


class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


libc = ctypes.CDLL(None, use_errno=True)
filters = Program(len(program) // 8, program)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filters)):
    sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
