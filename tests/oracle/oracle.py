#!/usr/bin/env python3
"""Black-box conformance runner: drives a director (the kernel's IPVS, or this
project's) with one scenario file and writes a trace of what it did.

    oracle.py run SCENARIO... --sut kernel|lvx --out DIR   run scenarios, one trace each
    oracle.py diff GOLDEN_DIR TRACE_DIR [NAME...]          compare traces, print what differs
    oracle.py show TRACE                                   print one trace as text

One network namespace holds the director; the harness holds the far ends of its
two veth links as raw sockets, so every frame in and out is seen:

    clients 10.9.0.0/16, fd09::/64 --gw 10.1.0.254-- cl0 [director] rs0 -- reals 10.2.0.11-18, fd02::11-18
    VIPs live on cl0: 10.1.0.1-10.1.0.8, fd01::1-fd01::8 ; the director's real-side address: 10.2.0.1, fd02::1
    arms 1: reals and clients share cl0 (the reals' addresses are on that link too)

Scenario lines (# comments; `for i A..B [step S]:` prefixes a line and {expr} is evaluated with i):
    arms 1|2                          which topology (default 2); must come first
    mtu cl0|rs0 N                     set the director's device MTU; must come before adm
    sysctl NAME VALUE                 an IPVS sysctl (net.ipv4.vs.NAME)
    adm ARGS...                       run ipvsadm ARGS: exit status, stdout, stderr are recorded
    list ARGS...                      the same, for listings (timers compared with tolerance)
    batch LINE; LINE; ...             ipvsadm -R with these lines on standard input
    fwmark MARK VIP tcp|udp PORT[,PORT]   packets to these ports of VIP bear firewall mark MARK
    link cl0|rs0 up|down              set the director's device up or down
    tcp  client|real SRC:PORT > DST:PORT FLAGS [key=value...]   FLAGS of SAFRPU, or '-'
    udp  client|real SRC:PORT > DST:PORT [key=value...]
    sctp client|real SRC:PORT > DST:PORT CHUNKTYPE [key=value...]
    esp|ah client|real SRC > DST [key=value...]   IPsec: protocol 50 or 51, which has no ports
    icmp client|real SRC > DST TYPE CODE [about=LASTn] [key=value...]  error about the n-th last frame seen on that side
    echo client|real SRC > DST [key=value...]
    reply LASTn FLAGS [key=value...]  a NAT server answers the n-th last frame that reached the real side (FLAGS: '-' for UDP)
    sleep SECONDS
keys: len=N payload bytes, ttl=N, tos=N, df=0|1, id=N, seq=N, ack=N, mss=N, mtu=N, frag=OFFSET:MORE (IPv4, bytes),
      opts=HEX (IPv4 options), vlan=N, badl4=1 (wrong checksum), quiet=1 (expect nothing, wait longer)
"""
import argparse, hashlib, json, os, re, select, shlex, socket, struct, subprocess, sys, time

CLIENT_GW = "02:00:00:00:01:fe"
def real_mac(k): return "02:00:00:00:02:%02x" % k
DIR_CL, DIR_RS = "02:00:00:00:0d:01", "02:00:00:00:0d:02"
# This copy knows more keys: frag= for IPv6 and ICMP, about=tcp|udp|sctp,SRC,SPORT,DST,DPORT (quotes a packet never sent), cut=N (bytes of the IP payload), hbh=1, dsto=N (IPv6 headers, N of destination options), ah=1 (an IPv6 authentication header), badl4=1 for ICMP,
# tags=TPID:ID[,TPID:ID...] (any VLAN tags, hexadecimal type and decimal id).
# This copy: the namespace, the work folder and so the links can be named by the environment, so that two may run at once.
# Each step notes by how much it came late (a busy machine); timers may be as much lower, on top of their tolerance; so with golden traces that say it.
# ORACLE_GOLDEN names the folder of golden traces: where a step has brought fewer frames than there, wait LATE longer for them.
WAIT = float(os.environ.get("ORACLE_WAIT", "0.12"))
LATE = 2.0
def golden_frames(path):
    folder, name = os.environ.get("ORACLE_GOLDEN"), os.path.splitext(os.path.basename(path))[0]
    if not folder: return []
    with open(f"{folder}/{name}.json") as f: return [len(s.get("frames", [])) for s in json.load(f)["steps"]]

# ---------------------------------------------------------------- packets
def csum(b):
    if len(b) & 1: b += b"\0"
    s = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff
def mac(s): return bytes(int(x, 16) for x in s.split(":"))
def ip(s): return socket.inet_pton(socket.AF_INET6 if ":" in s else socket.AF_INET, s)
def is6(s): return ":" in s
def pseudo(src, dst, proto, n):
    if is6(src): return ip(src) + ip(dst) + struct.pack("!I3xB", n, proto)
    return ip(src) + ip(dst) + struct.pack("!BBH", 0, proto, n)
def crc32c(b):
    t = crc32c.__dict__.setdefault("t", [])
    if not t:
        for i in range(256):
            c = i
            for _ in range(8): c = (c >> 1) ^ 0x82f63b78 if c & 1 else c >> 1
            t.append(c)
    c = 0xffffffff
    for x in b: c = t[(c ^ x) & 255] ^ (c >> 8)
    return c ^ 0xffffffff
def l3(src, dst, proto, body, kv):
    ttl, tos = int(kv.get("ttl", 64)), int(kv.get("tos", 0))
    if is6(src):
        if "frag" in kv:
            o, m = kv["frag"].split(":"); body = struct.pack("!BBHI", proto, 0, int(o) | int(m), int(kv.get("id", 0x1234))) + body; proto = 44
        if "hbh" in kv: body = bytes([proto, 0]) + bytes.fromhex("010400000000") + body; proto = 0
        for _ in range(int(kv.get("dsto", 0))): body = bytes([proto, 0]) + bytes.fromhex("010400000000") + body; proto = 60
        if "ah" in kv: body = bytes([proto, 4]) + bytes.fromhex("0000000000010000000100112233445566778899aabb") + body; proto = 51
        return struct.pack("!IHBB", 6 << 28 | tos << 20, len(body), proto, ttl) + ip(src) + ip(dst) + body
    opts = bytes.fromhex(kv.get("opts", "")); opts += b"\0" * (-len(opts) % 4)
    off, more = 0, 0
    if "frag" in kv:
        o, m = kv["frag"].split(":"); off, more = int(o) // 8, int(m)
    fl = (0x4000 if kv.get("df", "0") == "1" else 0) | (0x2000 if more else 0) | off
    h = struct.pack("!BBHHHBBH", 0x45 + len(opts) // 4, tos, 20 + len(opts) + len(body), int(kv.get("id", 0x1234)), fl, ttl, proto, 0) + ip(src) + ip(dst) + opts
    return h[:10] + struct.pack("!H", csum(h)) + h[12:] + body
def l4(kind, src, sport, dst, dport, kv, flags="", chunk=1):
    data = bytes(i & 255 for i in range(int(kv.get("len", 0))))
    if kind == "udp":
        h = struct.pack("!HHHH", sport, dport, 8 + len(data), 0)
        c = csum(pseudo(src, dst, 17, 8 + len(data)) + h + data) or 0xffff
        if kv.get("badl4"): c ^= 0x5555
        if kv.get("nocsum"): c = 0
        return 17, h[:6] + struct.pack("!H", c) + data
    if kind == "sctp":
        h = struct.pack("!HHII", sport, dport, 1, 0); ch = struct.pack("!BBH", chunk, 0, 4 + len(data)) + data
        return 132, h[:8] + struct.pack("<I", crc32c(h + ch)) + ch
    bits = 0
    for f in flags: bits |= {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "-": 0}[f]
    opt = struct.pack("!BBH", 2, 4, int(kv["mss"])) if "mss" in kv else b""
    h = struct.pack("!HHIIBBHHH", sport, dport, int(kv.get("seq", 1000)), int(kv.get("ack", 0)), (5 + len(opt) // 4) << 4, bits, 8192, 0, 0) + opt
    c = csum(pseudo(src, dst, 6, len(h) + len(data)) + h + data)
    if kv.get("badl4"): c ^= 0x5555
    return 6, h[:16] + struct.pack("!H", c) + h[18:] + data
def brief(b): return b.hex() if len(b) <= 24 else "%d bytes, sha1 %s" % (len(b), hashlib.sha1(b).hexdigest()[:12])
def decode_l4(proto, b, src, dst, whole=True):
    d = {}
    if proto in (6, 17, 132) and len(b) >= 8: d["sport"], d["dport"] = struct.unpack("!HH", b[:4])
    if proto == 6 and len(b) >= 20:
        d["seq"], d["ack"] = struct.unpack("!II", b[4:12]); d["flags"] = "".join(n for i, n in enumerate("FSRPAU") if b[13] & 1 << i)
        hl = (b[12] >> 4) * 4; d["opts"] = b[20:hl].hex(); d["win"] = struct.unpack("!H", b[14:16])[0]
        if whole: d["sum"] = "ok" if csum(pseudo(src, dst, 6, len(b)) + b) == 0 else "BAD"
        d["data"] = brief(b[hl:])
    elif proto == 17 and len(b) >= 8:
        raw = struct.unpack("!H", b[6:8])[0]
        if whole: d["sum"] = "none" if raw == 0 else "ok" if csum(pseudo(src, dst, 17, len(b)) + b) == 0 else "BAD"
        d["data"] = brief(b[8:])
        if d.get("dport") in (6080, 5555): d["gue"] = b[8:12].hex(); d["inner"] = decode_ip(b[12:]) if len(b) > 32 else None; d.pop("data")
    elif proto == 132 and len(b) >= 12:
        z = b[:8] + b"\0\0\0\0" + b[12:]; d["chunk"] = b[12] if len(b) > 12 else None
        d["sum"] = "ok" if struct.pack("<I", crc32c(z)) == b[8:12] else "BAD"; d["data"] = brief(b[12:])
    elif proto in (1, 58) and len(b) >= 8:
        d["type"], d["code"] = b[0], b[1]; d["rest"] = b[4:8].hex()
        if whole: d["sum"] = "ok" if csum((pseudo(src, dst, 58, len(b)) if proto == 58 else b"") + b) == 0 else "BAD"
        if (proto == 1 and b[0] in (3, 4, 5, 11, 12)) or (proto == 58 and b[0] < 128): d["about"] = decode_ip(b[8:], False)
        else: d["data"] = brief(b[8:])
    elif proto == 47 and len(b) >= 4:
        d["gre"] = b[:4].hex(); d["inner"] = decode_ip(b[4 if not b[0] & 0x80 else 8:])
    else: d["data"] = brief(b)
    return d
def decode_ip(b, whole=True):
    if not b: return {}
    if b[0] >> 4 == 6 and len(b) >= 40:
        src, dst = socket.inet_ntop(socket.AF_INET6, b[8:24]), socket.inet_ntop(socket.AF_INET6, b[24:40])
        d = {"v": 6, "src": src, "dst": dst, "proto": b[6], "ttl": b[7], "tos": (struct.unpack("!H", b[:2])[0] >> 4) & 255, "len": struct.unpack("!H", b[4:6])[0]}
        body, frag = b[40:40 + d["len"]], False
        if b[6] in (4, 41): d["inner"] = decode_ip(body); return d
        if b[6] == 44: d["fraghdr"] = body[:8].hex(); d["data"] = brief(body[8:]); return d
    elif b[0] >> 4 == 4 and len(b) >= 20:
        hl = (b[0] & 15) * 4; src, dst = socket.inet_ntoa(b[12:16]), socket.inet_ntoa(b[16:20]); fl = struct.unpack("!H", b[6:8])[0]
        d = {"v": 4, "src": src, "dst": dst, "proto": b[9], "ttl": b[8], "tos": b[1], "len": struct.unpack("!H", b[2:4])[0], "id": struct.unpack("!H", b[4:6])[0],
             "df": fl >> 14 & 1, "mf": fl >> 13 & 1, "off": (fl & 0x1fff) * 8, "hsum": "ok" if csum(b[:hl]) == 0 else "BAD", "ipopts": b[20:hl].hex()}
        body = b[hl:d["len"]]
        if d["off"]: d["data"] = brief(body); return d
        if b[9] in (4, 41): d["inner"] = decode_ip(body); return d
        if d["mf"]: whole = False
    else: return {"raw": b.hex()}
    d.update(decode_l4(d["proto"], body, src, dst, whole and len(b) >= d["len"])); return d
def decode(frame):
    dm, sm = frame[:6].hex(":"), frame[6:12].hex(":"); et, off = struct.unpack("!H", frame[12:14])[0], 14; d = {}
    if et == 0x8100: d["vlan"] = struct.unpack("!H", frame[14:16])[0] & 4095; et, off = struct.unpack("!H", frame[16:18])[0], 18
    to = {CLIENT_GW: "client-gw", DIR_CL: "director-cl", DIR_RS: "director-rs"}.get(dm) or ("real%d" % int(dm[-2:], 16) if dm.startswith("02:00:00:00:02:") else dm)
    frm = {DIR_CL: "director-cl", DIR_RS: "director-rs"}.get(sm, sm)
    return {"to": to, "from": frm, **d, **decode_ip(frame[off:])} if et in (0x800, 0x86dd) else None

# ---------------------------------------------------------------- topology
def sh(cmd, check=True, **kw): return subprocess.run(cmd, shell=isinstance(cmd, str), check=check, capture_output=True, text=True, **kw)
NS = os.environ.get("ORACLE_NS", "oracle")            # the director's namespace
def in_ns(args): return ["ip", "netns", "exec", NS] + args
def topology(arms, mtus):
    sh(f"ip netns del {NS} 2>/dev/null; ip link del ocl 2>/dev/null; ip link del ors 2>/dev/null", check=False)
    sh(f"ip netns add {NS} && ip -n {NS} link set lo up")
    for far, near, m in (("ocl", "cl0", DIR_CL), ("ors", "rs0", DIR_RS)):
        sh(f"ip link add {far} type veth peer name {near} netns {NS}")
        sh(f"sysctl -qw net.ipv6.conf.{far}.disable_ipv6=1; ip link set {far} arp off up mtu 9000; ip -n {NS} link set {near} address {m} mtu {mtus.get(near, 1500)}")
        sh(f"ethtool -K {far} tx off gro on 2>/dev/null; ip netns exec {NS} ethtool -K {near} tx off gro on 2>/dev/null", check=False)
    script = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0\n"
    script += "for d in cl0 rs0; do sysctl -qw net.ipv4.conf.$d.rp_filter=0 net.ipv4.conf.$d.send_redirects=0 net.ipv6.conf.$d.accept_dad=0 net.ipv6.conf.$d.router_solicitations=0; ip link set $d up; done\n"
    rs = "rs0" if arms == 2 else "cl0"
    script += "ip addr add 10.1.0.253/24 dev cl0; ip -6 addr add fd01::253/64 dev cl0 nodad\n"
    script += "".join(f"ip addr add 10.1.0.{k}/32 dev cl0; ip -6 addr add fd01::{k}/128 dev cl0 nodad\n" for k in range(1, 9))
    script += f"ip addr add 10.2.0.1/24 dev {rs}; ip -6 addr add fd02::1/64 dev {rs} nodad\n"
    script += f"ip neigh replace 10.1.0.254 lladdr {CLIENT_GW} dev cl0 nud permanent; ip -6 neigh replace fd01::254 lladdr {CLIENT_GW} dev cl0 nud permanent\n"
    script += "ip route add 10.9.0.0/16 via 10.1.0.254; ip -6 route add fd09::/64 via fd01::254\n"
    script += "".join(f"ip neigh replace 10.2.0.{k} lladdr {real_mac(k)} dev {rs} nud permanent; ip -6 neigh replace fd02::{k} lladdr {real_mac(k)} dev {rs} nud permanent\n" for k in range(11, 19))
    sh(in_ns(["sh", "-ec", script]))
def tap(dev):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind((dev, 0)); s.setblocking(False); return s

class KernelSut:
    name = "kernel"
    def start(self, arms): pass
    def ready(self): sh("modprobe ip_vs 2>/dev/null", check=False)
    def adm(self, args, stdin=None): return subprocess.run(in_ns(["ipvsadm"] + args), capture_output=True, text=True, input=stdin)
    def sysctl(self, n, v): sh(in_ns(["sysctl", "-qw", f"net.ipv4.vs.{n}={v}"]))
    def fwmark(self, mark, vip, proto, ports):
        fam = "ip6" if is6(vip) else "ip"
        sh(in_ns(["nft", f"add table inet m; add chain inet m p {{ type filter hook prerouting priority mangle; }}; add rule inet m p {fam} daddr {vip} {proto} dport {{ {ports} }} meta mark set {mark}"]))
    def stop(self): pass
class LvxSut:
    """LVX names the binary; `lvx director --port DEV... --api SOCK`; a link named ipvsadm to the same binary speaks ipvsadm's grammar (LVX_API names the socket)."""
    name = "lvx"
    def __init__(self): self.bin = os.path.abspath(os.environ.get("LVX", "target/release/lvx")); self.dir = os.environ.get("ORACLE_DIR", "/tmp/oracle-lvx"); self.p = None
    def ready(self):
        os.makedirs(self.dir, exist_ok=True); link = self.dir + "/ipvsadm"
        if os.path.islink(link): os.unlink(link)
        os.symlink(self.bin, link)
    def start(self, arms):
        sock = self.dir + "/api.sock"
        if os.path.exists(sock): os.unlink(sock)
        self.log = open(self.dir + "/director.log", "w")
        extra = shlex.split(os.environ.get("LVX_ARGS", ""))
        self.p = subprocess.Popen(in_ns([self.bin, "director", "--api", sock, "--port", "cl0"] + (["--port", "rs0"] if arms == 2 else []) + extra), stdout=self.log, stderr=self.log)
        for _ in range(200):
            if self.adm(["-L", "-n"]).returncode == 0: time.sleep(.05); return
            if self.p.poll() is not None: raise SystemExit("director exited: " + open(self.dir + "/director.log").read())
            time.sleep(.05)
        raise SystemExit("director not ready in 10 s: " + open(self.dir + "/director.log").read())
    def adm(self, args, stdin=None): return subprocess.run(in_ns([self.dir + "/ipvsadm"] + args), capture_output=True, text=True, input=stdin, env={**os.environ, "LVX_API": self.dir + "/api.sock"})
    def sysctl(self, n, v):
        r = subprocess.run(in_ns([self.bin, "set", n, v]), capture_output=True, text=True, env={**os.environ, "LVX_API": self.dir + "/api.sock"})
        if r.returncode: raise SystemExit(f"lvx set {n} {v}: {r.stderr}")
    def fwmark(self, mark, vip, proto, ports):
        r = subprocess.run(in_ns([self.bin, "fwmark", "add", mark, vip, proto, ports]), capture_output=True, text=True, env={**os.environ, "LVX_API": self.dir + "/api.sock"})
        if r.returncode: raise SystemExit(f"lvx fwmark add {mark} {vip} {proto} {ports}: {r.stderr}")
    def stop(self):
        if self.p:
            self.p.terminate()
            try: self.p.wait(5)
            except subprocess.TimeoutExpired: self.p.kill(); self.p.wait()
            self.p = None; self.log.close()

# ---------------------------------------------------------------- scenarios
def expand(text):
    for ln, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line: continue
        m = re.match(r"for (\w) (\d+)\.\.(\d+)(?: step (\d+))?:\s*(.*)", line)
        vals = [(None, None)] if not m else [(m[1], v) for v in range(int(m[2]), int(m[3]) + 1, int(m[4] or 1))]
        body = m[5] if m else line
        for n, v in vals:
            yield ln, re.sub(r"\{([^}]*)\}", lambda g: str(eval(g[1], {"__builtins__": {}}, {n: v} if n else {})), body)
def endpoint(s):
    if s.startswith("["): a, p = s[1:].split("]:"); return a, int(p)
    a, p = s.rsplit(":", 1); return a, int(p)

def run_scenario(path, sut):
    lines = list(expand(open(path).read())); arms, mtus, steps = 2, {}, []
    for ln, l in lines:
        w = l.split()
        if w[0] == "arms": arms = int(w[1])
        elif w[0] == "mtu": mtus[w[1]] = int(w[2])
        else: steps.append((ln, l))
    golden = golden_frames(path); topology(arms, mtus); sut.ready()
    taps = {"client": tap("ocl"), "real": tap("ors" if arms == 2 else "ocl")}
    sut.start(arms); trace = []; last = {"client": [], "real": []}; ident = 1
    def collect(wait, wanted=0):
        out, end, socks = [], time.time() + wait, set(taps.values())
        while True:
            now = time.time(); left = end - now
            if left <= 0 and len(out) < wanted and now < end + LATE: left = .02
            if left <= 0: break
            r, _, _ = select.select(list(socks), [], [], left)
            for s in r:
                try: f, addr = s.recvfrom(65535)
                except BlockingIOError: continue
                if addr[2] == socket.PACKET_OUTGOING: continue
                d = decode(f)
                if d is None or d.get("proto") == 58 and d.get("type") in (133, 134, 135, 136, 143): continue
                side = "client" if (d["to"] == "client-gw" or s is taps["client"] and arms == 2) else "real"
                d["side"] = side; out.append(d); last[side].append(f[14:])
        return out
    collect(.3); begun, planned = time.time(), 0.0
    try:
        for ln, l in steps:
            w = shlex.split(l); op = w[0]; rec = {"line": ln, "step": l}
            if op == "list": rec["late"] = round(time.time() - begun - planned, 1)
            if op in ("adm", "list", "batch"):
                r = sut.adm(["-R"], "".join(x.strip() + "\n" for x in l[6:].split(";"))) if op == "batch" else sut.adm(w[1:])
                rec.update(rc=r.returncode, out=r.stdout, err=r.stderr)
            elif op == "sysctl": sut.sysctl(w[1], w[2])
            elif op == "fwmark": sut.fwmark(*w[1:5])
            elif op == "link": sh(["ip", "-n", NS, "link", "set", w[1], w[2]]); time.sleep(.3)
            elif op == "sleep": time.sleep(float(w[1])); planned += float(w[1])
            else:
                if op == "reply":
                    rec["frames"] = []
                    got = [f for f in last["real"] if decode_ip(f).get("proto") in (6, 17)]; k = int(w[1][4:])
                    if len(got) < k: trace.append(rec); continue
                    q = decode_ip(got[-k]); br = (lambda a, p: f"[{a}]:{p}" if ":" in a else f"{a}:{p}")
                    op = "tcp" if q["proto"] == 6 else "udp"
                    w = [op, "real", br(q["dst"], q["dport"]), ">", br(q["src"], q["sport"])] + ([w[2]] if op == "tcp" else []) + w[3:] + ([f"ack={q['seq'] + 1}"] if op == "tcp" else [])
                side, src_s, dst_s = w[1], w[2], w[4]; kv = dict(x.split("=", 1) for x in w[5:] if "=" in x); pos = [x for x in w[5:] if "=" not in x]
                kv.setdefault("id", str(ident)); ident = ident % 60000 + 1
                if op in ("esp", "ah"):
                    src, dst = src_s, dst_s; proto = 50 if op == "esp" else 51
                    data = bytes(i & 255 for i in range(int(kv.get("total", kv.get("len", 0)))))
                    seg = (b"" if op == "esp" else bytes([59, 4, 0, 0])) + struct.pack("!II", 0x1001, 7) + (b"" if op == "esp" else bytes(12)) + data
                    if "frag" in kv: o = int(kv["frag"].split(":")[0]); seg = seg[o:o + int(kv["bytes"])]
                elif op in ("tcp", "udp", "sctp"):
                    (src, sp), (dst, dp) = endpoint(src_s), endpoint(dst_s)
                    proto, seg = l4(op, src, sp, dst, dp, kv, pos[0] if pos and op == "tcp" else "", int(pos[0]) if pos and op == "sctp" else 1)
                    if "frag" in kv:
                        o, m = kv["frag"].split(":"); full = l4(op, src, sp, dst, dp, {**kv, "len": kv.get("total", kv.get("len", 0))}, pos[0] if pos and op == "tcp" else "")[1]
                        seg = full[int(o):int(o) + int(kv["bytes"])]
                else:
                    src, dst = src_s, dst_s; six = is6(src)
                    if op == "icmp":
                        ab = kv.get("about", "LAST1")
                        if ab.startswith("LAST") and len(last[side]) < int(ab[4:]): rec["frames"] = []; trace.append(rec); continue
                        if ab.startswith("LAST"): about = last[side][-int(ab[4:])]
                        else:
                            q = ab.split(","); qp, qs = l4(q[0], q[1], int(q[2]), q[3], int(q[4]), {"len": 20}, "A") if q[0] not in ("esp", "ah") else (50 if q[0] == "esp" else 51, struct.pack("!II", 0x1001, 7) + bytes(20)); about = l3(q[1], q[3], qp, qs, {})
                        n = 28 if not six else 1232
                        b = struct.pack("!BBHI", int(pos[0]), int(pos[1]), 0, int(kv.get("mtu", 0))) + about[:n if not kv.get("quote") else int(kv["quote"])]
                    else: b = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 7, 1) + b"ping"
                    proto = 58 if six else 1; c = csum((pseudo(src, dst, 58, len(b)) if six else b"") + b); seg = b[:2] + struct.pack("!H", c ^ (0x5555 if kv.get("badl4") else 0)) + b[4:]
                    if "frag" in kv: o = int(kv["frag"].split(":")[0]); seg = seg[o:o + int(kv["bytes"])]
                if "cut" in kv: seg = seg[:int(kv["cut"])]
                pkt = l3(src, dst, proto, seg, kv)
                if side == "client" or arms == 1: dm = DIR_CL
                else: dm = DIR_RS
                k = None
                m = re.match(r"(?:10\.2\.0\.|fd02::)(\d+)$", src)
                sm = real_mac(int(m[1])) if side == "real" and m else CLIENT_GW
                tag = struct.pack("!HH", 0x8100, int(kv["vlan"])) if "vlan" in kv else b""
                for t in kv.get("tags", "").split(",") if "tags" in kv else []: tag += struct.pack("!HH", int(t.split(":")[0], 16), int(t.split(":")[1]))
                frame = mac(dm) + mac(sm) + tag + struct.pack("!H", 0x86dd if is6(src) else 0x800) + pkt
                taps[side].send(frame + b"\0" * max(0, 60 - len(frame)))
                wait = WAIT * (2 if kv.get("quiet") else 1); planned += wait
                rec["frames"] = collect(wait, golden[len(trace)] if len(trace) < len(golden) else 0)
            if op not in ("sleep", "sysctl", "fwmark", "link"): trace.append(rec)
    finally:
        sut.stop()
        for s in set(taps.values()): s.close()
    return {"scenario": os.path.basename(path), "sut": sut.name, "steps": trace}

# ---------------------------------------------------------------- comparison
TIMER = re.compile(r"\b(\d{2,3}):(\d{2})\b")
def same_text(a, b, late=0, golden_late=0):
    a, b = (re.sub(r"\(size=\d+\)", "(size=N)", x) for x in (a, b))     # the table's size is the director's own
    if a == b: return True
    ta, tb = TIMER.findall(a), TIMER.findall(b)
    if TIMER.sub("@", a) != TIMER.sub("@", b): return False
    over = lambda x, y: (int(x[0]) * 60 + int(x[1])) - (int(y[0]) * 60 + int(y[1]))
    return all(-2 - max(0, golden_late) <= over(x, y) <= 2 + max(0, late) for x, y in zip(ta, tb))
def norm_list(t):
    """Connection listings come out in hash order: compare their lines as a set."""
    ls = t.splitlines()
    return "\n".join(ls[:2] + sorted(ls[2:], key=lambda l: TIMER.sub("@", l))) if ls and ls[0].startswith("IPVS connection entries") else t
def norm_frame(f):
    f = {k: v for k, v in f.items() if k not in ()}
    if "inner" in f: f.pop("id", None)               # the outer header's id is the sender's own choice
    if f.get("off") and f.get("proto") in (4, 41, 47): f.pop("id", None)
    if "inner" in f and f.get("proto") == 17: f.pop("sport", None)
    if f.get("proto") == 1: f.pop("id", None)        # replies and errors that the director's host writes itself
    return f
def diff_trace(g, t):
    out = []
    if len(g["steps"]) != len(t["steps"]): out.append(("steps", len(g["steps"]), len(t["steps"])))
    for a, b in zip(g["steps"], t["steps"]):
        if a["step"] != b["step"]: out.append(("another step", a["step"], b["step"])); break
        if "rc" in a:
            for k in ("rc", "out", "err"):
                x, y = a[k], b[k]
                if k == "out": x, y = norm_list(x), norm_list(y)
                if (x != y) if k == "rc" else not same_text(x, y, b.get("late", 0), a.get("late", 0)): out.append((f"line {a['line']}: {a['step']} [{k}]", x, y))
        else:
            x, y = [norm_frame(f) for f in a["frames"]], [norm_frame(f) for f in b["frames"]]
            if x != y:
                if len(x) == len(y):
                    for p, q in zip(x, y):
                        ks = [k for k in sorted(set(p) | set(q)) if p.get(k) != q.get(k)]
                        if ks: out.append((f"line {a['line']}: {a['step']}", {k: p.get(k) for k in ks}, {k: q.get(k) for k in ks}))
                else: out.append((f"line {a['line']}: {a['step']} [frames]", x, y))
    return out

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); sub = ap.add_subparsers(dest="c", required=True)
    r = sub.add_parser("run"); r.add_argument("scenario", nargs="+"); r.add_argument("--sut", choices=["kernel", "lvx"], required=True); r.add_argument("--out", required=True)
    d = sub.add_parser("diff"); d.add_argument("golden"); d.add_argument("trace"); d.add_argument("name", nargs="*"); d.add_argument("--quiet", action="store_true")
    s = sub.add_parser("show"); s.add_argument("trace"); a = ap.parse_args()
    if a.c == "run":
        os.makedirs(a.out, exist_ok=True); bad = 0
        for p in a.scenario:
            name = os.path.splitext(os.path.basename(p))[0]
            try: t = run_scenario(p, KernelSut() if a.sut == "kernel" else LvxSut())
            except (SystemExit, subprocess.CalledProcessError, Exception) as e:
                t = {"scenario": name, "sut": a.sut, "steps": [], "error": f"{e} {getattr(e, 'stderr', '')}"}; bad += 1; print(f"{name}: ERROR {t['error'][:300]}", flush=True)
            json.dump(t, open(f"{a.out}/{name}.json", "w"), indent=1); print(f"{name}: {len(t['steps'])} steps", flush=True)
        sh(f"ip netns del {NS}; ip link del ocl; ip link del ors", check=False)
        sys.exit(bad > 0)
    if a.c == "diff":
        names = a.name or sorted(f[:-5] for f in os.listdir(a.golden) if f.endswith(".json")); tot = same = steps = bad = 0
        for n in names:
            g = json.load(open(f"{a.golden}/{n}.json"))
            try: t = json.load(open(f"{a.trace}/{n}.json"))
            except FileNotFoundError: t = {"steps": []}
            ds = diff_trace(g, t); tot += 1; same += not ds; steps += len(g["steps"]); bad += min(len(ds), len(g["steps"]))
            print(f"{'same  ' if not ds else 'DIFFER'} {n} ({len(g['steps'])} steps, {len(ds)} differ)")
            for w, x, y in ([] if a.quiet else ds[:6]):
                print(f"   {w}"); print("     kernel: " + str(x).replace("\n", "\n             ")); print("     here:   " + str(y).replace("\n", "\n             "))
        print(f"{same} of {tot} scenarios the same; {steps - bad} of {steps} steps"); sys.exit(same != tot)
    t = json.load(open(a.trace))
    for st in t["steps"]:
        print(f"{st['line']:4} {st['step']}")
        if "rc" in st: print("".join("       " + x + "\n" for x in (f"rc={st['rc']}\n" + st["out"] + st["err"]).splitlines()), end="")
        for f in st.get("frames", []): print("       -> " + json.dumps(f))
main()
