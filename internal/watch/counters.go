package watch

import (
	"regexp"
	"strings"

	"github.com/vishvananda/netlink"
)

// counters are what a device counted since it was made. Drivers reset theirs when they restart.
type counters struct {
	// packets is how many the program saw, verdicts what it said of them, by "pass", "drop",
	// "tx", "redirect" and "aborted": those that are counted. lost are by what counts them.
	packets  uint64
	verdicts map[string]uint64
	lost     map[string]uint64
	// own is set when packets are what the driver counts as seen by XDP, or the sum of the
	// verdicts. Else they are all packets that the device received.
	own bool
}

// verdicts are those of XDP, in the order they are shown.
func verdicts() []string { return []string{"pass", "drop", "tx", "redirect", "aborted"} }

// ofXDP say by the end of a counter's name, behind "xdp", what it counts. The names are those of
// veth, virtio_net, mlx5, ena, mvneta, sfc, mana, hv_netvsc and enetc (Linux 6.18).
var ofXDP = map[string]string{
	"": "packets", "packets": "packets", "pkts": "packets",
	"pass": "pass", "passed": "pass",
	"drop": "drop", "drops": "drop", "dropped": "drop",
	"tx": "tx", "tx_xmit": "tx",
	"redirect": "redirect", "redirects": "redirect", "redirected": "redirect",
	"aborted": "aborted", "abort": "aborted", "invalid": "aborted", "unknown": "aborted",
	"tx_errors": "lost", "tx_err": "lost", "tx_error": "lost", "tx_drops": "lost", "tx_full": "lost", "tx_failed": "lost",
	"redirect_err": "lost", "redirect_errors": "lost", "redirect_failed": "lost", "redirect_fail": "lost",
}

// failedTX are the counters of packets that the program returned XDP_TX for and that were not
// sent, in drivers whose counter of XDP_TX has those that were: veth (drivers/net/veth.c,
// veth_xdp_flush_bq) and mlx5 (en/xdp.c). Others count the verdict first.
var failedTX = map[string]bool{
	"rx_queue_#_xdp_tx_errors": true,
	"rx#_xdp_tx_full":          true, "rx_xdp_tx_full": true, "rx#_xdp_tx_err": true, "rx_xdp_tx_err": true,
}

var digits = regexp.MustCompile(`[0-9]+`)

// kindOf says what a counter of a driver's counts of XDP, "" for others, and how it is named
// without the numbers of queues.
func kindOf(name string) (kind, shape string) {
	shape = digits.ReplaceAllString(strings.Join(strings.Fields(strings.ToLower(name)), "_"), "#")
	if shape == "rx_queue_#_drops" { // of veth: redirects and XDP_TX that failed, and no memory
		return "lost", shape
	}
	before, after, ok := strings.Cut(shape, "xdp")
	// What is counted where frames leave is not the program's, or counted where they came too.
	if !ok || !strings.Contains(before, "rx") && strings.Contains(before, "tx") {
		return "", shape
	}
	return ofXDP[strings.Trim(after, "_")], shape
}

// count makes counters of what a driver counts (ethtool -S) and of the device's own statistics.
func count(driver map[string]uint64, own *netlink.LinkStatistics) counters {
	sums := make(map[string]map[string]uint64) // by kind and shape
	for name, n := range driver {
		kind, shape := kindOf(name)
		if kind == "" {
			continue
		}
		if sums[kind] == nil {
			sums[kind] = make(map[string]uint64)
		}
		sums[kind][shape] += n
	}
	failed := uint64(0)
	c := counters{verdicts: make(map[string]uint64), lost: make(map[string]uint64)}
	for shape, n := range withoutTotals(sums["lost"]) {
		c.lost[strings.NewReplacer("rx_queue_#_", "", "rx#_", "rx_", "_#_", "_", "#_", "", "#", "").Replace(shape)] = n
		if failedTX[shape] {
			failed += n
		}
	}
	for _, verdict := range verdicts() {
		for _, n := range withoutTotals(sums[verdict]) {
			c.verdicts[verdict] += n
		}
	}
	if _, ok := c.verdicts["tx"]; ok {
		c.verdicts["tx"] += failed
	} else {
		failed = 0
	}
	seen := withoutTotals(sums["packets"])
	for _, n := range seen {
		c.packets += n
	}
	c.complete(len(seen) > 0, failed, own)
	return c
}

// complete works out what a driver does not count. failed are packets that are both in a verdict
// and lost.
func (c *counters) complete(seen bool, failed uint64, own *netlink.LinkStatistics) {
	known, sum := 0, uint64(0)
	for _, verdict := range []string{"drop", "tx", "redirect"} {
		if n, ok := c.verdicts[verdict]; ok {
			known, sum = known+1, sum+n
		}
	}
	_, passes := c.verdicts["pass"]
	c.own = true
	switch {
	case seen && known == 3 && !passes:
		for _, n := range c.lost {
			sum += n
		}
		sum = sum + c.verdicts["aborted"] - min(failed, sum)
		c.verdicts["pass"] = max(c.packets, sum) - sum
	case !seen && known == 3 && passes:
		c.packets = sum + c.verdicts["pass"] + c.verdicts["aborted"]
	case !seen:
		c.own = false
	}
	if own == nil {
		return
	}
	if !c.own {
		c.packets = own.RxPackets
	}
	c.lost["rx_missed_errors"] = own.RxMissedErrors
	if len(c.lost) == 1 { // else what the driver counts is in it too
		c.lost["rx_dropped"] = own.RxDropped
	}
}

// withoutTotals leaves out sums over queues where there are counters of each.
func withoutTotals(sums map[string]uint64) map[string]uint64 {
	each := make(map[string]uint64)
	for shape, n := range sums {
		if strings.Contains(shape, "#") {
			each[shape] = n
		}
	}
	if len(each) > 0 {
		return each
	}
	return sums
}

// since is what was counted since an earlier reading.
func (c counters) since(before counters) counters {
	d := counters{own: c.own, packets: rose(c.packets, before.packets)}
	d.verdicts, d.lost = roseEach(c.verdicts, before.verdicts), roseEach(c.lost, before.lost)
	return d
}

func roseEach(now, before map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(now))
	for name, n := range now {
		out[name] = rose(n, before[name])
	}
	return out
}

// rose is how much a counter rose.
func rose(now, before uint64) uint64 { return max(now, before) - before }
