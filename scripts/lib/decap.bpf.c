// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Strips the outer header of tunnelled packets on a real server whose kernel
// has no tunnel devices. It runs at the ingress hook of tc, so the host's own
// stack then sees the client's packet as if it had come without a tunnel.
//
// Only packets whose inner destination is the VIP are touched: a real server
// must not become a way in for any other address that a stranger wraps up.
// Outer fragments pass untouched (the hook sees single frames, it cannot
// reassemble): keep the path's MTU large enough, or let the director announce
// a smaller one, as IPVS and lvx do.
//
// scripts/real-server compiles it with: VIP_IS_V6 (0 or 1), VIP0..VIP3 (the
// address as words in network order, VIP0 alone for IPv4), GUE_PORT.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>

static long (*const load)(const struct __sk_buff *skb, __u32 offset, void *to, __u32 length_bytes) =
	(void *)BPF_FUNC_skb_load_bytes;
static long (*const store)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 length_bytes,
		     __u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static long (*const adjust_room)(struct __sk_buff *skb, __s32 change_bytes, __u32 mode, __u64 flags) =
	(void *)BPF_FUNC_skb_adjust_room;

// Linux 6.3 and newer know these flags; older headers do not name them.
#define DECAP_TO_IPV4 (1ULL << 7)
#define DECAP_TO_IPV6 (1ULL << 8)

#define be16(x) __builtin_bswap16(x)
#define be32(x) __builtin_bswap32(x)

enum { ETHERNET = 14, ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_IPV6 = 0x86dd };
enum { PROTO_IPIP = 4, PROTO_UDP = 17, PROTO_IPV6 = 41, PROTO_GRE = 47, PROTO_DSTOPTS = 60 };

// RFC 2784 and 2890: version 0; checksum, key and sequence number may follow, 4 bytes each.
static __always_inline int gre_length(struct __sk_buff *skb, __u32 at, __u16 *ethertype)
{
	__u16 head[2];

	if (load(skb, at, head, sizeof(head)))
		return -1;
	__u16 flags = be16(head[0]);
	if (flags & 0x4007) // routing, or a version other than 0
		return -1;
	*ethertype = be16(head[1]);
	return 4 + (flags & 0x8000 ? 4 : 0) + (flags & 0x2000 ? 4 : 0) + (flags & 0x1000 ? 4 : 0);
}

// draft-ietf-intarea-gue: UDP, then version 0 with a protocol number, or version 1: the packet itself.
static __always_inline int gue_length(struct __sk_buff *skb, __u32 at, __u8 *protocol)
{
	__u16 port;
	__u8 head[2];

	if (load(skb, at + 2, &port, sizeof(port)) || load(skb, at + 8, head, sizeof(head)))
		return -1;
	if (port != be16(GUE_PORT))
		return -1;
	switch (head[0] >> 6) {
	case 0:
		if (head[0] & 0x20) // a control message carries no packet
			return -1;
		*protocol = head[1];
		return 8 + 4 + (head[0] & 0x1f) * 4;
	case 1:
		*protocol = head[0] >> 4 == 6 ? PROTO_IPV6 : PROTO_IPIP;
		return 8;
	}
	return -1;
}

static __always_inline int is_for_vip(struct __sk_buff *skb, __u32 at)
{
	__u32 word[4];

	if (VIP_IS_V6)
		return !load(skb, at + 24, word, 16) && word[0] == be32(VIP0) && word[1] == be32(VIP1) &&
		       word[2] == be32(VIP2) && word[3] == be32(VIP3);
	return !load(skb, at + 16, word, 4) && word[0] == be32(VIP0);
}

// The length of the outer network header, and the protocol after it; -1: not ours.
static __always_inline int outer_length(struct __sk_buff *skb, __u8 *protocol)
{
	__u8 head[10];

	if (load(skb, ETHERNET, head, sizeof(head)))
		return -1;
	if (skb->protocol == be16(ETHERTYPE_IPV4)) {
		if (head[6] & 0x3f || head[7]) // a fragment
			return -1;
		*protocol = head[9];
		return (head[0] & 15) * 4;
	}
	if (skb->protocol != be16(ETHERTYPE_IPV6))
		return -1;
	*protocol = head[6];
	if (*protocol != PROTO_DSTOPTS)
		return 40;
	// Linux's own ip6tnl puts its encapsulation limit here (RFC 2473).
	if (load(skb, ETHERNET + 40, head, 2))
		return -1;
	*protocol = head[0];
	return 40 + 8 + head[1] * 8;
}

__attribute__((section("tc"), used)) int decapsulate(struct __sk_buff *skb)
{
	__u8 protocol;
	__u16 ethertype = 0;
	int outer, tunnel = 0;

	if (skb->pkt_type != 0) // PACKET_HOST: for this machine's own MAC only
		return TC_ACT_UNSPEC;
	outer = outer_length(skb, &protocol);
	if (outer < 20)
		return TC_ACT_UNSPEC;
	if (protocol == PROTO_GRE) {
		tunnel = gre_length(skb, ETHERNET + outer, &ethertype);
	} else if (protocol == PROTO_UDP) {
		tunnel = gue_length(skb, ETHERNET + outer, &protocol);
	}
	if (tunnel < 0)
		return TC_ACT_UNSPEC;
	if (protocol == PROTO_IPIP)
		ethertype = ETHERTYPE_IPV4;
	else if (protocol == PROTO_IPV6)
		ethertype = ETHERTYPE_IPV6;
	if (ethertype != (VIP_IS_V6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4))
		return TC_ACT_UNSPEC;
	if (!is_for_vip(skb, ETHERNET + outer + tunnel))
		return TC_ACT_UNSPEC;

	__u64 flags = 0; // needed only, and accepted by older kernels only, where the family stays
	if (skb->protocol != be16(ethertype))
		flags = VIP_IS_V6 ? DECAP_TO_IPV6 : DECAP_TO_IPV4;
	if (adjust_room(skb, -(outer + tunnel), BPF_ADJ_ROOM_MAC, flags))
		return TC_ACT_SHOT;
	ethertype = be16(ethertype);
	store(skb, 12, &ethertype, sizeof(ethertype), 0);
	return TC_ACT_UNSPEC;
}

__attribute__((section("license"), used)) char _license[] = "Dual MIT/GPL";
