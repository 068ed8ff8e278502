//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The edge firewall's XDP program: one verdict for each frame, by the longest
 * prefix that holds its source address. What the frame's headers cannot tell
 * is refused as malformed; what is no IP at all is not ours to judge.
 *
 * Needs Linux 5.9 (XDP links). Built without xdp.frags for the sake of kernels
 * before 5.18, so a NIC with jumbo frames may refuse native mode.
 */
#include "xh_bpf.h"

/* Zero is no verdict, so that a map value nobody wrote never lets traffic in. */
enum verdict {
	VERDICT_ALLOW = 1,
	VERDICT_DENY = 2,
};

/* Where a frame was counted: each frame in exactly one place. */
enum outcome {
	OUTCOME_PASSED_RULE = 0,
	OUTCOME_PASSED_DEFAULT = 1,
	OUTCOME_PASSED_EXEMPT = 2, /* not IP (ARP, LLDP, …), or IPv6 neighbour discovery */
	OUTCOME_DROPPED_RULE = 3,
	OUTCOME_DROPPED_DEFAULT = 4,
	OUTCOME_DROPPED_MALFORMED = 5,
	OUTCOME_COUNT = 6,
};

/*
 * The four zero bytes are never matched (prefixlen is at most 32). They are
 * there because a trie node keeps its value right behind the key: without them
 * the 64-bit hits below would lie on an odd word, and atomic adds on such an
 * address fault on arm64 and riscv64.
 */
struct key4 {
	__u32 prefixlen;
	__u8 addr[4];
	__u8 zero[4];
};

struct key6 {
	__u32 prefixlen;
	__u8 addr[16];
};

struct rule {
	enum verdict verdict;
	__u32 pad;
	__u64 hits; /* frames judged by this rule since it was put */
};

struct config {
	enum verdict default_verdict;
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

/*
 * Two tries, not one with v4-mapped addresses: in one, ::/0 would also judge
 * all of IPv4. Their sizes are set by the loader.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct key4);
	__type(value, struct rule);
	__uint(max_entries, 4097);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} rules4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct key6);
	__type(value, struct rule);
	__uint(max_entries, 4097);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} rules6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct config);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, enum outcome);
	__type(value, struct counter);
	__uint(max_entries, OUTCOME_COUNT);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counters SEC(".maps");

static __always_inline int decide(enum outcome outcome, __u64 bytes)
{
	struct counter *c = bpf_map_lookup_elem(&counters, &outcome);

	if (c) {
		c->packets++;
		c->bytes += bytes;
	}
	return outcome <= OUTCOME_PASSED_EXEMPT ? XDP_PASS : XDP_DROP;
}

static __always_inline enum outcome judge(struct rule *rule)
{
	__u32 zero = 0;
	struct config *s;

	if (rule) {
		__sync_fetch_and_add(&rule->hits, 1);
		return rule->verdict == VERDICT_ALLOW ? OUTCOME_PASSED_RULE : OUTCOME_DROPPED_RULE;
	}
	s = bpf_map_lookup_elem(&settings, &zero);
	if (s && s->default_verdict == VERDICT_ALLOW)
		return OUTCOME_PASSED_DEFAULT;
	return OUTCOME_DROPPED_DEFAULT;
}

static __always_inline enum outcome judge4(void *data, void *end)
{
	struct iphdr *ip = data;
	struct key4 key = { .prefixlen = 32 };

	/*
	 * tot_len is not held against the frame: a coalesced frame of more than
	 * 64 KiB carries 0 there, and the stack checks it anyway.
	 */
	if ((void *)(ip + 1) > end || ip->version_ihl >> 4 != 4)
		return OUTCOME_DROPPED_MALFORMED;
	__u32 header = (ip->version_ihl & 0x0f) * 4;
	if (header < sizeof(*ip) || data + header > end)
		return OUTCOME_DROPPED_MALFORMED;
	__builtin_memcpy(key.addr, ip->saddr, sizeof(key.addr));
	return judge(bpf_map_lookup_elem(&rules4, &key));
}

/*
 * Neighbour discovery (RFC 4861: router and neighbour solicitation and
 * advertisement, redirect) is IPv6's ARP: without it no allowed host could be
 * reached. A hop limit of 255 proves that no router forwarded it.
 */
static __always_inline int is_neighbour_discovery(struct ipv6hdr *ip, void *end)
{
	__u8 *type = (__u8 *)(ip + 1);

	if (ip->nexthdr != IPPROTO_ICMPV6 || ip->hop_limit != 255 || (void *)(type + 1) > end)
		return 0;
	return *type >= 133 && *type <= 137;
}

static __always_inline enum outcome judge6(void *data, void *end)
{
	struct ipv6hdr *ip = data;
	struct key6 key = { .prefixlen = 128 };

	if ((void *)(ip + 1) > end || ip->version_class >> 4 != 6)
		return OUTCOME_DROPPED_MALFORMED;
	if (is_neighbour_discovery(ip, end))
		return OUTCOME_PASSED_EXEMPT;
	__builtin_memcpy(key.addr, ip->saddr, sizeof(key.addr));
	return judge(bpf_map_lookup_elem(&rules6, &key));
}

static __always_inline int is_vlan(__u16 proto)
{
	return proto == xh_htons(ETH_P_8021Q) || proto == xh_htons(ETH_P_8021AD);
}

static __always_inline enum outcome classify(void *data, void *end)
{
	struct ethhdr *eth = data;
	void *at = eth + 1;
	__u16 proto;

	if (at > end)
		return OUTCOME_DROPPED_MALFORMED;
	proto = eth->h_proto;

#pragma unroll
	for (int tags = 0; tags < 2; tags++) {
		struct vlan_hdr *vlan = at;

		if (!is_vlan(proto))
			break;
		if ((void *)(vlan + 1) > end)
			return OUTCOME_DROPPED_MALFORMED;
		proto = vlan->encapsulated_proto;
		at = vlan + 1;
	}
	/* A third tag would hide the address, and with it the frame, from the rules. */
	if (is_vlan(proto))
		return OUTCOME_DROPPED_MALFORMED;
	if (proto == xh_htons(ETH_P_IP))
		return judge4(at, end);
	if (proto == xh_htons(ETH_P_IPV6))
		return judge6(at, end);
	return OUTCOME_PASSED_EXEMPT;
}

SEC("xdp")
int xh_filter(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	return decide(classify(data, end), end - data);
}

/* No GPL-only helper is used; a program that needs one must say so here. */
char program_license[] SEC("license") = "Apache-2.0";
