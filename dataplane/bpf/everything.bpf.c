// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Gives every IP packet of one device to AF_XDP sockets, one for each queue. For devices
 * that belong to a benchmark alone. ARP and neighbour discovery stay with the host, so
 * that the device can still be found. As little as can be: on a veth link this runs on the
 * sender's core.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define QUEUES_MAX 256

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

SEC("xdp")
int everything(struct xdp_md *context)
{
	void *at = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	const struct ethhdr *link = at;

	if ((void *)(link + 1) > end)
		return XDP_PASS;
	if (link->h_proto == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip = (void *)(link + 1);

		if ((void *)(ip + 1) > end || ip->nexthdr == IPPROTO_ICMPV6 ||
		    ip->nexthdr == IPPROTO_HOPOPTS)
			return XDP_PASS;
	} else if (link->h_proto != bpf_htons(ETH_P_IP)) {
		return XDP_PASS;
	}
	/* A frame that no socket waits for is nobody's. */
	return bpf_redirect_map(&sockets, context->rx_queue_index, XDP_DROP);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
