package watch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// What drivers count, by the names that they give it: each verdict once, and what is lost.
func TestCount(t *testing.T) {
	t.Parallel()
	own := &netlink.LinkStatistics{RxPackets: 1000, RxDropped: 7, RxMissedErrors: 3}
	for _, test := range []struct {
		name   string
		driver map[string]uint64
		want   counters
	}{
		{"none", nil, counters{
			packets: 1000, verdicts: map[string]uint64{}, lost: map[string]uint64{"rx_missed_errors": 3, "rx_dropped": 7}, own: false}},
		{"veth", map[string]uint64{
			"peer_ifindex": 5, "rx_queue_0_xdp_packets": 100, "rx_queue_0_xdp_bytes": 6000, "rx_queue_0_drops": 4,
			"rx_queue_0_xdp_redirect": 50, "rx_queue_0_xdp_drops": 20, "rx_queue_0_xdp_tx": 10, "rx_queue_0_xdp_tx_errors": 1,
			"rx_queue_1_xdp_packets": 10, "rx_queue_1_xdp_redirect": 10, "rx_queue_1_xdp_drops": 0, "rx_queue_1_xdp_tx": 0,
			"tx_queue_0_xdp_xmit": 99, "tx_queue_0_xdp_xmit_errors": 9, "rx_pp_alloc_fast": 12,
		}, counters{
			packets: 110, verdicts: map[string]uint64{"pass": 15, "drop": 20, "tx": 11, "redirect": 60},
			lost: map[string]uint64{"drops": 4, "xdp_tx_errors": 1, "rx_missed_errors": 3}, own: true}},
		{"virtio_net", map[string]uint64{
			"rx0_packets": 90, "rx0_drops": 2, "rx0_xdp_packets": 80, "rx0_xdp_tx": 5, "rx0_xdp_redirects": 6, "rx0_xdp_drops": 7,
			"tx0_xdp_tx": 11, "tx0_xdp_tx_drops": 1,
		}, counters{
			packets: 80, verdicts: map[string]uint64{"pass": 62, "drop": 7, "tx": 5, "redirect": 6},
			lost: map[string]uint64{"rx_missed_errors": 3, "rx_dropped": 7}, own: true}},
		{"mlx5_core: sums and each queue", map[string]uint64{
			"rx_xdp_drop": 20, "rx_xdp_redirect": 6, "rx_xdp_tx_xmit": 4, "rx0_xdp_drop": 12, "rx1_xdp_drop": 8, "rx0_xdp_redirect": 6,
			"rx0_xdp_tx_xmit": 4, "tx_xdp_xmit": 77, "tx0_xdp_xmit": 77, "rx_xdp_tx_full": 3, "rx0_xdp_tx_full": 3,
		}, counters{
			packets: 1000, verdicts: map[string]uint64{"drop": 20, "tx": 7, "redirect": 6},
			lost: map[string]uint64{"rx_xdp_tx_full": 3, "rx_missed_errors": 3}, own: false}},
		{"ena: all verdicts and no sum", map[string]uint64{
			"queue_0_rx_xdp_aborted": 1, "queue_0_rx_xdp_drop": 2, "queue_0_rx_xdp_pass": 3, "queue_0_rx_xdp_tx": 4,
			"queue_0_rx_xdp_invalid": 5, "queue_0_rx_xdp_redirect": 6,
		}, counters{
			packets: 21, verdicts: map[string]uint64{"aborted": 6, "drop": 2, "pass": 3, "tx": 4, "redirect": 6},
			lost: map[string]uint64{"rx_missed_errors": 3, "rx_dropped": 7}, own: true}},
		{"enetc: with blanks", map[string]uint64{"Rx ring  0 XDP drops": 5, "Rx ring  1 XDP drops": 6}, counters{
			packets: 1000, verdicts: map[string]uint64{"drop": 11}, lost: map[string]uint64{"rx_missed_errors": 3, "rx_dropped": 7}}},
	} {
		if diff := cmp.Diff(test.want, count(test.driver, own), cmp.AllowUnexported(counters{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// A driver that restarts begins anew; what it counted before is no negative number.
func TestSince(t *testing.T) {
	t.Parallel()
	before := counters{packets: 100, verdicts: map[string]uint64{"drop": 90}, lost: map[string]uint64{"drops": 5}}
	now := counters{packets: 30, verdicts: map[string]uint64{"drop": 95, "tx": 2}, lost: map[string]uint64{"drops": 5}}
	got := now.since(before)
	want := counters{verdicts: map[string]uint64{"drop": 5, "tx": 2}, lost: map[string]uint64{"drops": 0}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(counters{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
