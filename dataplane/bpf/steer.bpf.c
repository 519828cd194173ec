// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Which frames are the director's. Those go to the AF_XDP socket of the queue they came
 * in on; all else passes to the host untouched. What is not understood is the host's.
 *
 * A frame that is the director's is dropped when no socket waits for it. Passed on, the
 * host would answer with a reset and break connections that a restarted director still
 * knows.
 *
 * The sizes and numbers here are those of port/steering/.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PORTS_MAX 16
#define QUEUES_MAX 256
/* RFC 8200 names six extension headers, each at most once (destination options twice). */
#define EXTENSIONS_MAX 7
/* VLAN tags of one frame that are taken off. */
#define TAGS_MAX 4
#define FILTER_PLACES 65536
#define KNOWN_PLACES 65536

/* What an address or endpoint is to the director; one may be several. */
#define VIRTUAL 1u    /* a virtual service's */
#define REAL 2u       /* a NAT real server's */
#define TUNNEL 4u     /* a tunnel's far end */
#define REAL_WHOLE 8u /* by address only: every packet from it, whatever the port */

/* IPv4 addresses are written as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
struct address {
	__be32 word[4];
};

/* Port 0 stands for every port. */
struct endpoint {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 unused;
};

struct vlan {
	__u32 device;
	__u16 id;
	__u16 unused;
};

/* A device, and the number that the director gave it. Device 0 is none. */
struct port {
	__u32 device;
	__u8 mac[ETH_ALEN];
	__u16 index;
};

/* A further link address of the host on a device: a macvlan's, a VLAN device's own. */
struct station {
	__u32 device;
	__u8 mac[ETH_ALEN];
	__u16 unused;
};

enum { PASSED, REDIRECTED, DROPPED, DENIED, COUNTERS };

/* Whose a frame is. */
enum owner { HOST, DIRECTOR, NOBODY, UNDECIDED };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint);
	__type(value, __u32);
} endpoints SEC(".maps");

/* Every address of `endpoints` with all its roles: for packets whose ports are not known. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u32);
} addresses SEC(".maps");

/*
 * By an address's hash, all roles of all addresses with that hash. Most frames of others need
 * no look-up but this one, which is no call: look-ups in arrays are compiled into the program.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FILTER_PLACES);
	__type(key, __u32);
	__type(value, __u8);
} filter SEC(".maps");

/* An endpoint with its roles. */
struct known {
	struct endpoint endpoint;
	__u32 roles;
};

/*
 * By an endpoint's hash, one endpoint with that hash: the call that a look-up in `endpoints` is,
 * is spared for nearly all frames. While an element changes, a frame may see parts of both; what
 * is then steered by mistake, the director gives to the host, and what is missed is looked up.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KNOWN_PLACES);
	__type(key, __u32);
	__type(value, struct known);
} known SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct vlan);
	__type(value, __u8);
} vlans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct station);
	__type(value, __u8);
} stations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, PORTS_MAX *QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* A client prefix; IPv4 ones are 96 bits longer than they read. */
struct prefix {
	__u32 bits;
	struct address address;
};

/* Clients that are let in (0) or kept out (1); the longest prefix decides. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u8);
} prefixes SEC(".maps");

/* An IP packet's ends. */
struct packet {
	struct endpoint source;
	struct endpoint destination;
	void *transport;
	/* A fragment, or its headers go on beyond what is followed: the ports are not known. */
	bool partial;
};

static __always_inline __u32 count(__u32 which, __u32 verdict)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);

	if (counter)
		*counter += 1;
	return verdict;
}

static __always_inline __u32 roles_of(const struct address *address)
{
	const __u32 *roles = bpf_map_lookup_elem(&addresses, address);

	return roles ? *roles : 0;
}

static __always_inline struct endpoint in_v4(__be32 address, __be16 port, __u8 protocol)
{
	return (struct endpoint){
		.address.word = { 0, 0, bpf_htonl(0xffff), address },
		.port = port,
		.protocol = protocol,
	};
}

static __always_inline __u32 hash_of(const struct address *address)
{
	return address->word[0] * 0x85ebca6b + address->word[1] * 0xc2b2ae35 +
	       address->word[2] * 0x27d4eb2f + address->word[3] * 0x9e3779b1;
}

/* Roles that the address with this hash may have: those of any. */
static __always_inline __u32 maybe_roles_of(__u32 hash)
{
	const __u32 place = hash >> 16;
	const __u8 *roles = bpf_map_lookup_elem(&filter, &place);

	return roles ? *roles : 0;
}

/* The roles of the endpoint's address at `port`, where that is known at once; else 0. */
static __always_inline __u32 known_roles_of(const struct endpoint *endpoint, __be16 port,
					    __u32 hash)
{
	const __u32 rest = port | endpoint->protocol << 16;
	const __u32 place = (hash + rest * 0x165667b1) >> 16;
	const struct known *is = bpf_map_lookup_elem(&known, &place);

	if (!is || is->endpoint.address.word[3] != endpoint->address.word[3] ||
	    is->endpoint.port != port || is->endpoint.protocol != endpoint->protocol ||
	    is->endpoint.address.word[2] != endpoint->address.word[2] ||
	    is->endpoint.address.word[1] != endpoint->address.word[1] ||
	    is->endpoint.address.word[0] != endpoint->address.word[0])
		return 0;
	return is->roles;
}

/* Whether the endpoint has one of `roles`, by its own port or by "every port". */
static __always_inline bool is_any_at(struct endpoint *endpoint, __u32 roles)
{
	const __u32 *exact = bpf_map_lookup_elem(&endpoints, endpoint);
	const __be16 port = endpoint->port;

	if (exact && *exact & roles)
		return true;
	if (!port)
		return false;
	endpoint->port = 0;
	const __u32 *any = bpf_map_lookup_elem(&endpoints, endpoint);

	endpoint->port = port;
	return any && *any & roles;
}

/* Whether `endpoint` has one of `roles`, as far as the packet tells. */
static __always_inline bool is_any(struct endpoint *endpoint, __u32 roles, bool partial)
{
	const __u32 hash = hash_of(&endpoint->address);
	const __u32 maybe = maybe_roles_of(hash);

	if (!(maybe & roles))
		return false;
	if (partial || (roles & REAL && maybe & REAL_WHOLE)) {
		const __u32 by_address = roles_of(&endpoint->address);

		if (!(by_address & roles))
			return false;
		if (partial || by_address & REAL_WHOLE)
			return true;
	}
	return known_roles_of(endpoint, endpoint->port, hash) & roles ||
	       known_roles_of(endpoint, 0, hash) & roles || is_any_at(endpoint, roles);
}

static __always_inline bool read_ports(struct packet *packet, void *end)
{
	const __be16 *ports = packet->transport;
	const __u8 protocol = packet->source.protocol;

	if (packet->partial ||
	    (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP))
		return true;
	if ((void *)(ports + 2) > end)
		return false;
	packet->source.port = ports[0];
	packet->destination.port = ports[1];
	return true;
}

static __always_inline bool read_ipv4(struct packet *packet, void *at, void *end)
{
	const struct iphdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return false;
	packet->source.address.word[2] = bpf_htonl(0xffff);
	packet->source.address.word[3] = ip->saddr;
	packet->destination.address.word[2] = bpf_htonl(0xffff);
	packet->destination.address.word[3] = ip->daddr;
	packet->source.protocol = packet->destination.protocol = ip->protocol;
	/* More fragments, or an offset (RFC 791, 3.1). */
	packet->partial = ip->frag_off & bpf_htons(0x3fff);
	packet->transport = at + ip->ihl * 4;
	return read_ports(packet, end);
}

static __always_inline bool read_ipv6(struct packet *packet, void *at, void *end)
{
	const struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return false;
	__builtin_memcpy(&packet->source.address, &ip->saddr, sizeof(struct address));
	__builtin_memcpy(&packet->destination.address, &ip->daddr, sizeof(struct address));

	__u8 next = ip->nexthdr;

	at = (void *)(ip + 1);
	packet->partial = true;
	for (int i = 0; i <= EXTENSIONS_MAX; i++) {
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_AH) {
			packet->partial = next == IPPROTO_FRAGMENT;
			break;
		}
		const __u8 *extension = at;

		if ((void *)(extension + 2) > end)
			return false;
		/* In units of 8 bytes without the first 8; AH: of 4 without the first 8 (RFC 4302). */
		at += next == IPPROTO_AH ? (extension[1] + 2) * 4 : (extension[1] + 1) * 8;
		next = extension[0];
	}
	packet->source.protocol = packet->destination.protocol = next;
	packet->transport = at;
	return read_ports(packet, end);
}

/* False when the packet is neither IPv4 nor IPv6, or cut short. */
static __always_inline bool read_ip(struct packet *packet, __be16 type, void *at, void *end)
{
	__builtin_memset(packet, 0, sizeof(*packet));
	if (type == bpf_htons(ETH_P_IP))
		return read_ipv4(packet, at, end);
	if (type == bpf_htons(ETH_P_IPV6))
		return read_ipv6(packet, at, end);
	return false;
}

/* Errors that concern a packet; IPv4: those that IPVS relates (RFC 792), IPv6: below 128. */
static __always_inline bool is_icmp_error(const struct packet *packet, __be16 type, void *end)
{
	const __u8 *icmp = packet->transport;

	if (packet->partial || (void *)(icmp + 8) > end)
		return false;
	if (type == bpf_htons(ETH_P_IP))
		return packet->source.protocol == IPPROTO_ICMP &&
		       (icmp[0] == 3 || icmp[0] == 4 || icmp[0] == 11);
	return packet->source.protocol == IPPROTO_ICMPV6 && icmp[0] < 128;
}

/* Whether an ICMP error speaks of a packet that the director sent or forwarded. */
static __always_inline bool concerns_us(struct packet *packet, __be16 type, void *end)
{
	struct packet quoted;

	if (roles_of(&packet->destination.address) & VIRTUAL)
		return true;
	return read_ip(&quoted, type, packet->transport + 8, end) &&
	       (is_any(&quoted.destination, REAL | TUNNEL, quoted.partial) ||
		is_any(&quoted.source, REAL | VIRTUAL, quoted.partial));
}

static __always_inline bool is_denied(const struct address *client)
{
	const struct prefix prefix = { .bits = 128, .address = *client };
	const __u8 *denied = bpf_map_lookup_elem(&prefixes, &prefix);

	return denied && *denied;
}

/*
 * The owner of TCP and UDP over IPv4 as they mostly are, where the arrays tell. In one short
 * piece: the kernel's own way of a frame is long, and drives the program out of the cache; what
 * is run of it is fetched anew for each. Says what `owner_of` would.
 */
static __always_inline enum owner usual_owner_of(const struct ethhdr *link, void *end)
{
	const struct iphdr *ip = (void *)(link + 1);
	const __be16 *ports = (void *)(ip + 1);

	if ((void *)(ports + 2) > end || link->h_proto != bpf_htons(ETH_P_IP) ||
	    *(const __u8 *)ip != 0x45 || ip->frag_off & bpf_htons(0x3fff) ||
	    (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP))
		return UNDECIDED;

	const struct endpoint source = in_v4(ip->saddr, ports[0], ip->protocol);
	const struct endpoint destination = in_v4(ip->daddr, ports[1], ip->protocol);
	const __u32 to = hash_of(&destination.address);

	bool is_service = known_roles_of(&destination, destination.port, to) & VIRTUAL;

	if (!is_service && maybe_roles_of(to) & VIRTUAL) {
		is_service = known_roles_of(&destination, 0, to) & VIRTUAL;
		if (!is_service)
			return UNDECIDED;
	}
	if (is_service)
		return is_denied(&source.address) ? NOBODY : DIRECTOR;

	const __u32 from = hash_of(&source.address);

	if (!(maybe_roles_of(from) & REAL))
		return HOST;
	return known_roles_of(&source, source.port, from) & REAL ? DIRECTOR : UNDECIDED;
}

static __always_inline enum owner owner_of(__be16 type, void *at, void *end)
{
	struct packet packet;

	if (!read_ip(&packet, type, at, end))
		return HOST;
	if (is_icmp_error(&packet, type, end) && concerns_us(&packet, type, end))
		return DIRECTOR;
	if (is_any(&packet.destination, VIRTUAL, packet.partial))
		return is_denied(&packet.source.address) ? NOBODY : DIRECTOR;
	return is_any(&packet.source, REAL, packet.partial) ? DIRECTOR : HOST;
}

static __always_inline bool is_same_mac(const __u8 *a, const __u8 *b)
{
	return *(const __u32 *)a == *(const __u32 *)b &&
	       *(const __u16 *)(a + 4) == *(const __u16 *)(b + 4);
}

/* Whether the host has the frame's destination on this device beside the device's own address. */
static __always_inline bool is_station(const struct ethhdr *link, __u32 device)
{
	struct station station = { .device = device };

	/* Most frames to others go to groups, and nobody's own address is one. */
	if (link->h_dest[0] & 1)
		return false;
	__builtin_memcpy(station.mac, link->h_dest, ETH_ALEN);
	return bpf_map_lookup_elem(&stations, &station);
}

static __always_inline bool is_tag(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/*
 * Takes VLAN tags off, as the host does: those that only carry a priority (id 0; IEEE 802.1Q, 9.6),
 * and one that names a VLAN. False when that is none that the director serves.
 */
static __always_inline bool is_served(__be16 *type, void **at, void *end, __u32 device)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < TAGS_MAX; i++) {
		const __be16 *tag = *at;

		if (!is_tag(*type))
			return true;
		if ((void *)(tag + 2) > end)
			return false;

		struct vlan vlan = { .device = device, .id = bpf_ntohs(tag[0]) & 0xfff };

		if (vlan.id && (*type != bpf_htons(ETH_P_8021Q) || is_tag(tag[1]) ||
				!bpf_map_lookup_elem(&vlans, &vlan)))
			return false;
		*type = tag[1];
		*at += 4;
	}
	return !is_tag(*type);
}

static __always_inline const struct port *port_of(__u32 device)
{
	/* Unrolled: where the place lies on the stack, the verifier may lose count. */
#pragma clang loop unroll(full)
	for (__u32 place = 0; place < PORTS_MAX; place++) {
		const __u32 key = place;
		const struct port *port = bpf_map_lookup_elem(&ports, &key);

		if (port && port->device == device)
			return port;
	}
	return NULL;
}

/* A function of its own, so that it does not lie amidst the usual way. */
static __attribute__((noinline)) enum owner unusual_owner_of(struct xdp_md *context)
{
	void *at = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	const struct ethhdr *link = at;

	if ((void *)(link + 1) > end)
		return HOST;

	__be16 type = link->h_proto;

	at = (void *)(link + 1);
	return is_served(&type, &at, end, context->ingress_ifindex) ? owner_of(type, at, end) : HOST;
}

static __always_inline int steered(struct xdp_md *context)
{
	void *end = (void *)(long)context->data_end;
	const struct ethhdr *link = (void *)(long)context->data;
	const struct port *port = port_of(context->ingress_ifindex);

	if (!port || (void *)(link + 1) > end ||
	    (!is_same_mac(link->h_dest, port->mac) && !is_station(link, port->device)))
		return count(PASSED, XDP_PASS);

	enum owner owner = usual_owner_of(link, end);

	if (owner == UNDECIDED)
		owner = unusual_owner_of(context);
	if (owner != DIRECTOR)
		return owner == HOST ? count(PASSED, XDP_PASS) : count(DENIED, XDP_DROP);

	const __u32 queue = context->rx_queue_index;

	if (port->index >= PORTS_MAX || queue >= QUEUES_MAX)
		return count(DROPPED, XDP_DROP);

	const int verdict = bpf_redirect_map(&xsks, port->index * QUEUES_MAX + queue, XDP_DROP);

	return count(verdict == XDP_REDIRECT ? REDIRECTED : DROPPED, verdict);
}

SEC("xdp")
int steer(struct xdp_md *context)
{
	return steered(context);
}

/* For ports whose frames may take several buffers (Linux 5.18): headers lie in the first. */
SEC("xdp.frags")
int steer_frags(struct xdp_md *context)
{
	return steered(context);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
