//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A harness that runs XDP programs on packets that it restores.
 *
 * BPF_PROG_TEST_RUN runs a program many times on one xdp_buff and restores
 * nothing. This one stands between: each of its runs brings one packet back
 * into the buffer, byte for byte, and jumps to one of the programs. What that
 * program returns comes back here, as it was entered from a subprogram, and is
 * compared with what is expected of this packet.
 *
 * A window is a number of runs of one program. Its time is taken from before
 * the first timed run of the program to after the last one; all windows do the
 * same between these, so that the difference of two windows is the difference
 * of their programs. The file is loaded once as xdp, once as xdp.frags.
 *
 * A frame in fragments cannot get or lose any here: a call has frames of one number
 * of them, which the kernel makes before its first run. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define ETH_HLEN 14
/* What the kernel's buffer can hold: a page less the headroom's free part. */
#define MOST_OUT 4096
/* Helpers reach bytes up to this one; pieces of a packet in fragments. */
#define MOST_FRAGS 65535
#define PIECE 4096
#define MOST_PIECES 16
#define MOST_META 252
#define WALK_PIECE 65536
#define LINE 64

/* The longest packet, which is what a value of `packets` has room for. */
volatile const __u32 longest = 64;
/* Packets may be in fragments: what is longer than PIECE has further values. */
volatile const __u32 frags;
/* Pieces of memory that a run walks through first, to leave nothing cached. */
volatile const __u32 pieces;
volatile const __u32 meta_length;
volatile const __u8 metadata[MOST_META];

struct window {
	__u32 site;   /* which entry of `targets` */
	__u32 expect; /* where its packets begin in `expected` */
	__u32 first;  /* entry of `schedule` */
	__u32 group;  /* entries from there on, in turn */
	__u32 warm;   /* runs that are not timed */
	__u32 timed;  /* and those that are */
	__u32 bytes;  /* bytes are compared too, and runs take longer */
	__u32 walk;   /* each run walks through memory first */
};

struct span {
	__u64 ns; /* of all timed runs */
	__u32 verdicts, lengths, bytes; /* runs with another one than expected */
	__u32 lost; /* runs whose packet could not be restored */
};

struct expect {
	__u64 hash; /* 0: any bytes */
	__u32 verdict;
	__u32 length;
};

struct packet {
	__u32 length;
	__u32 rest; /* entry of the second piece, which the others follow */
	__u8 bytes[];
};

struct run {
	struct window w;
	__u64 begin;
	__u64 at, end, meta;   /* pointers of the packet before a run */
	__u64 home;            /* where its data was at first */
	__u64 edge;            /* and the end of its first buffer; 0: it has no other */
	__u32 left;            /* runs of the window */
	__u32 entry;           /* of the group */
	__u32 next;            /* window */
	__u32 none;            /* the verdict when there is no target */
	__u64 fence;
	__u64 sum;
	struct span s;
	/* The first run that differed. */
	__u32 differs, packet, site;
	struct expect got, want;
};

volatile struct run run SEC(".data.run");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u32);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4096);
} packets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} schedule SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct expect);
} expected SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct window);
} windows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct span);
} spans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, MOST_OUT + 8);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, WALK_PIECE);
} memory SEC(".maps");

/* The kernel patches a tail call by a constant index to a direct jump. The
 * target returns to the caller of these. What they return themselves is read
 * from memory, as the verifier would take a constant for the target's verdict. */
static __noinline int site0(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &targets, 0);
	return run.none;
}

static __noinline int site1(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &targets, 1);
	return run.none;
}

static __noinline int site2(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &targets, 2);
	return run.none;
}

/* Pointers of a packet become numbers by way of memory. Needs CAP_PERFMON. */
static __always_inline void look(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	void *meta = (void *)(long)ctx->data_meta;

	*(void *volatile *)&run.at = data;
	*(void *volatile *)&run.end = end;
	*(void *volatile *)&run.meta = meta;
}

/* Stores the bytes of a packet, piece by piece. */
static __always_inline long store(struct xdp_md *ctx, struct packet *packet)
{
	__u32 at = 0, key = packet->rest, i;
	__u64 left = packet->length;

	for (i = 0; i < MOST_PIECES; i++) {
		__u64 n = left < PIECE ? left : PIECE;

		barrier_var(n); /* one register, whose bounds the verifier keeps */
		if ((__s64)n < 1 || n > PIECE || bpf_xdp_store_bytes(ctx, at, packet->bytes, n))
			return -1;
		at += n;
		left -= n;
		if (!left)
			return 0;
		packet = bpf_map_lookup_elem(&packets, &key);
		if (!packet)
			return -1;
		key++;
	}
	return -1;
}

/* Brings a packet back: where it begins and ends, its bytes, its metadata. The
 * tail grows first and shrinks last, as less than an Ethernet header is refused.
 * It stands in the window of the program that ran before: so each call is made
 * always, by 0 where nothing moved, or programs that move an end would pay for it. Of
 * the tail's two one is made: a call less around the program.
 * Of a packet in fragments the tail is that of the last one. Fragments that a
 * program released, and bytes that it moved into the first buffer, stay there. */
static __always_inline long restore(struct xdp_md *ctx, struct packet *packet)
{
	__u64 length = packet->length;
	__u32 i;
	__u64 at, end, want;
	long failed = 0;

	look(ctx);
	at = run.at;
	end = run.end;
	if (frags) {
		end = at + bpf_xdp_get_buff_len(ctx);
		if (!run.home && end > run.end)
			run.edge = run.end;
	}
	if (!run.home)
		run.home = at;
	want = run.home + length;
	failed |= bpf_xdp_adjust_meta(ctx, at - run.meta);
	if (end < want)
		failed |= bpf_xdp_adjust_tail(ctx, want - end);
	failed |= bpf_xdp_adjust_head(ctx, run.home - at);
	if (end >= want) {
		long error = bpf_xdp_adjust_tail(ctx, want - end);

		/* By 0 too it is refused of fragments whose driver tells no size of them. */
		if (!frags || end > want)
			failed |= error;
	}
	if (frags) {
		look(ctx);
		if (run.edge && run.end != run.edge)
			return -1;
		failed |= store(ctx, packet);
	} else {
		if (length < ETH_HLEN || length > longest)
			return -1;
		failed |= bpf_xdp_store_bytes(ctx, 0, packet->bytes, length);
	}
	if (meta_length) {
		failed |= bpf_xdp_adjust_meta(ctx, -(int)meta_length);
		for (i = 0; i < MOST_META / 4; i++) {
			__u32 *word = (void *)(long)ctx->data_meta + 4 * i;

			if (4 * i >= meta_length || (void *)(word + 1) > (void *)(long)ctx->data)
				break;
			*word = *(const volatile __u32 *)&metadata[4 * i];
		}
	}
	return failed;
}

/* One step of hash, on the bytes from an offset on. 0: they could not be read. */
static __always_inline __u64 hash_on(struct xdp_md *ctx, __u64 sum, __u32 at, __u64 length)
{
	__u32 key = 0, i;
	__u64 *word = bpf_map_lookup_elem(&scratch, &key);

	barrier_var(length); /* one register, whose bounds the verifier keeps */
	/* Signed: before Linux 6.8 the verifier learns no least value from "not 0",
	 * which clang makes of an unsigned "less than 1". */
	if (!word || (__s64)length < 1 || length > MOST_OUT)
		return 0;
	barrier_var(length);
	word[length / 8] = 0; /* what follows the last byte */
	if (bpf_xdp_load_bytes(ctx, at, word, length))
		return 0;
	for (i = 0; i < MOST_OUT / 8; i++) {
		if (8 * i >= length)
			break;
		sum = (sum ^ word[i]) * 0x9e3779b97f4a7c15ULL;
		sum ^= sum >> 29;
	}
	return sum;
}

struct hashing {
	struct xdp_md *ctx;
	__u64 length, sum;
};

static long hash_piece(__u32 piece, struct hashing *h)
{
	__u64 at = (__u64)piece * PIECE, n = h->length - at;

	if (at >= h->length)
		return 1;
	h->sum = hash_on(h->ctx, h->sum, at, n < PIECE ? n : PIECE);
	return !h->sum;
}

/* The same as Hash in replay.go. */
static __always_inline __u64 hash(struct xdp_md *ctx, __u64 length)
{
	struct hashing h = { ctx, length, length };
	__u64 sum;

	if (frags) {
		if (length > MOST_FRAGS)
			return 0;
		bpf_loop(MOST_PIECES, hash_piece, &h, 0);
		return h.sum;
	}
	sum = hash_on(ctx, length, 0, length);
	return sum ? sum : 1;
}

static long walk_piece(__u32 piece, void *none)
{
	__u8 *bytes = bpf_map_lookup_elem(&memory, &piece);
	__u64 sum = 0;
	__u32 i;

	if (!bytes)
		return 1;
	for (i = 0; i < WALK_PIECE; i += LINE)
		sum += *(volatile __u8 *)(bytes + i);
	run.sum += sum;
	return 0;
}

static __always_inline bool next_window(void)
{
	__u32 key = run.next++;
	struct window *w = bpf_map_lookup_elem(&windows, &key);

	if (!w || !w->timed)
		return false;
	run.w.site = w->site;
	run.w.expect = w->expect;
	run.w.first = w->first;
	run.w.group = w->group;
	run.w.warm = w->warm;
	run.w.timed = w->timed;
	run.w.bytes = w->bytes;
	run.w.walk = w->walk;
	run.left = w->warm + w->timed;
	run.entry = 0;
	run.s.verdicts = 0;
	run.s.lengths = 0;
	run.s.bytes = 0;
	run.s.lost = 0;
	return true;
}

static __always_inline void finish_window(__u64 now)
{
	__u32 key = run.next - 1;
	struct span *s = bpf_map_lookup_elem(&spans, &key);

	if (!s)
		return;
	s->ns = now - run.begin;
	s->verdicts = run.s.verdicts;
	s->lengths = run.s.lengths;
	s->bytes = run.s.bytes;
	s->lost = run.s.lost;
}

static __noinline void differs(__u32 packet, __u32 verdict, __u32 length, __u64 sum)
{
	__u32 key = run.w.expect + packet;
	struct expect *e = bpf_map_lookup_elem(&expected, &key);

	if (run.differs || !e)
		return;
	run.differs = 1;
	run.packet = packet;
	run.site = run.w.site;
	run.got.hash = sum;
	run.got.verdict = verdict;
	run.got.length = length;
	run.want.hash = e->hash;
	run.want.verdict = e->verdict;
	run.want.length = e->length;
}

SEC("xdp")
int replay(struct xdp_md *ctx)
{
	__u32 key, verdict, length, *index;
	struct packet *packet;
	struct expect *e;
	__u64 now = 0, sum = 0;
	bool wrong = false;

	if (!run.left && !next_window())
		return XDP_ABORTED;
	key = run.w.first + run.entry;
	if (++run.entry >= run.w.group)
		run.entry = 0;
	index = bpf_map_lookup_elem(&schedule, &key);
	if (!index)
		return XDP_ABORTED;
	packet = bpf_map_lookup_elem(&packets, index);
	key = run.w.expect + *index;
	e = bpf_map_lookup_elem(&expected, &key);
	if (!packet || !e)
		return XDP_ABORTED;

	/* Without pieces the verifier must not see the loop: Linux 6.18 drops a callback
	 * that never runs, and then finds no program for it. */
	if (pieces && run.w.walk)
		bpf_loop(pieces, walk_piece, (void *)0, 0);
	if (restore(ctx, packet))
		run.s.lost++;
	/* Locked: what was stored is in the cache before the program loads it.
	 * The driver stored it long ago too. */
	__sync_fetch_and_add(&run.fence, 1);
	if (run.left == run.w.timed)
		run.begin = bpf_ktime_get_ns();
	if (run.w.site == 0)
		verdict = site0(ctx);
	else if (run.w.site == 1)
		verdict = site1(ctx);
	else
		verdict = site2(ctx);
	if (run.left == 1)
		now = bpf_ktime_get_ns();

	length = bpf_xdp_get_buff_len(ctx);
	if (run.w.bytes && e->hash) {
		sum = hash(ctx, length);
		if (sum != e->hash) {
			run.s.bytes++;
			wrong = true;
		}
	}
	if (verdict != e->verdict) {
		run.s.verdicts++;
		wrong = true;
	}
	if (length != e->length) {
		run.s.lengths++;
		wrong = true;
	}
	if (wrong)
		differs(*index, verdict, length, sum);
	if (--run.left == 0)
		finish_window(now);
	return XDP_PASS;
}
