// Package traffic sends live frames: real XDP frames from a page pool, made
// by the kernel's BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES, which go
// the way any driver's frames go. Requires at least Linux 5.18.
package traffic
