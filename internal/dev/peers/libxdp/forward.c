// A minimal AF_XDP forwarder on libxdp, as a C programmer writes it first: one
// UMEM, a socket on each device that shares it, frames that stay where they are,
// batches of 64, or of BATCH. forward IN OUT [BUDGET [XSKMAP]] sends every frame that IN receives out
// by OUT. BUDGET is XDP_MAX_TX_SKB_BUDGET (Linux 6.18), the kernel's own without or with 0.
// XSKMAP is the descriptor of a map that the socket of IN goes to, for a program that
// somebody else attaches once this says "ready": then frames are not copied.
#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <xdp/xsk.h>

#define FRAMES 8192
#define RING 2048
#ifndef BATCH
#define BATCH 64
#endif

#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

static void check(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

static uint64_t size = 2048;    // of a chunk
static uint64_t chunks[FRAMES]; // free ones
static unsigned int free_chunks = FRAMES;

static void refill(struct xsk_ring_prod *fill)
{
	uint32_t i, at, n = xsk_prod_nb_free(fill, RING);

	if (n > free_chunks)
		n = free_chunks;
	if (!n || !xsk_ring_prod__reserve(fill, n, &at))
		return;
	for (i = 0; i < n; i++)
		*xsk_ring_prod__fill_addr(fill, at + i) = chunks[--free_chunks];
	xsk_ring_prod__submit(fill, n);
}

int main(int argc, char **argv)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	struct xsk_umem_config config = {
		.fill_size = RING, .comp_size = RING,
	};
	struct xsk_socket_config in_config = {
		.rx_size = RING, .tx_size = RING, .bind_flags = XDP_USE_NEED_WAKEUP | XDP_COPY,
	}, out_config = {
		.rx_size = RING, .tx_size = RING,
		.libbpf_flags = XSK_LIBBPF_FLAGS__INHIBIT_PROG_LOAD,
	};
	struct xsk_ring_prod in_fill, out_fill, in_tx, out_tx;
	struct xsk_ring_cons in_comp, out_comp, in_rx, out_rx;
	struct xsk_socket *in, *out;
	struct xsk_umem *umem;
	uint64_t outstanding = 0;
	void *area;
	int i;

	if (argc < 3) {
		fprintf(stderr, "usage: forward IN OUT [BUDGET [XSKMAP]]\n");
		return 2;
	}
	if (argc > 4) {
		in_config.bind_flags = XDP_USE_NEED_WAKEUP | XDP_ZEROCOPY;
		in_config.libbpf_flags = XSK_LIBBPF_FLAGS__INHIBIT_PROG_LOAD;
		size = 4096; // igb receives whole KiB into what is left of a chunk
	}
	config.frame_size = size;
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	area = mmap(NULL, FRAMES * size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	check(area == MAP_FAILED ? errno : 0, "map memory");
	for (i = 0; i < FRAMES; i++)
		chunks[i] = i * size;
	check(xsk_umem__create(&umem, area, FRAMES * size, &in_fill, &in_comp, &config),
	      "create UMEM");
	check(xsk_socket__create_shared(&in, argv[1], 0, umem, &in_rx, &in_tx, &in_fill, &in_comp,
					&in_config), "open IN");
	check(xsk_socket__create_shared(&out, argv[2], 0, umem, &out_rx, &out_tx, &out_fill,
					&out_comp, &out_config), "open OUT");
	if (argc > 3 && atoi(argv[3])) {
		int budget = atoi(argv[3]);

		check(setsockopt(xsk_socket__fd(out), SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget,
				 sizeof(budget)) ? errno : 0, "set budget");
	}
	if (argc > 4) {
		check(xsk_socket__update_xskmap(in, atoi(argv[4])), "put IN into XSKMAP");
		refill(&in_fill);
		puts("ready");
		fflush(stdout);
	}
	for (;;) {
		uint32_t j, n, from, to = 0, done;

		n = xsk_ring_cons__peek(&out_comp, BATCH, &from);
		for (j = 0; j < n; j++)
			chunks[free_chunks++] = *xsk_ring_cons__comp_addr(&out_comp, from + j) / size * size;
		xsk_ring_cons__release(&out_comp, n);
		outstanding -= n;

		refill(&in_fill);
		n = xsk_ring_cons__peek(&in_rx, BATCH, &from);
		if (!n && xsk_ring_prod__needs_wakeup(&in_fill))
			recvfrom(xsk_socket__fd(in), NULL, 0, MSG_DONTWAIT, NULL, NULL);
		done = xsk_prod_nb_free(&out_tx, n);
		if (done > n)
			done = n;
		if (done)
			xsk_ring_prod__reserve(&out_tx, done, &to);
		for (j = 0; j < n; j++) {
			const struct xdp_desc *desc = xsk_ring_cons__rx_desc(&in_rx, from + j);

			if (j < done)
				*xsk_ring_prod__tx_desc(&out_tx, to + j) = *desc;
			else // no room: dropped
				chunks[free_chunks++] = desc->addr / size * size;
		}
		if (done)
			xsk_ring_prod__submit(&out_tx, done);
		xsk_ring_cons__release(&in_rx, n);
		outstanding += done;
		if (outstanding && xsk_ring_prod__needs_wakeup(&out_tx))
			sendto(xsk_socket__fd(out), NULL, 0, MSG_DONTWAIT, NULL, 0);
	}
}
