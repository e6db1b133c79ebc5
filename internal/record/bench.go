package record

import (
	"cmp"
	"errors"
	"math"
	"slices"

	"github.com/unthunk/unthunk/internal/stat"
)

// BenchRow is one measured row of `bench`.
type BenchRow struct {
	// Name is stable: "redirect-map/bulk=64", followed by "/key=value"
	// for every option that is not at its default.
	Name string `json:"name"`
	// Labels are the row's coordinates: scenario, bulk, operation, mode,
	// size, place; of a program of the user's scenario, bulk, prog, object,
	// tag, and packets or size.
	Labels map[string]string `json:"labels"`
	// Mpps is the rate of the whole chain on its one core, in million
	// packets a second; Ns its inverse, in ns per packet. Both are nil
	// when Refused is set.
	Mpps *stat.Quantity `json:"mpps"`
	Ns   *stat.Quantity `json:"ns"`
	// Hop is the net price of the redirect hop in ns per packet: this
	// chain less the same chain without the redirect, round by round. Nil
	// when the scenario has none.
	Hop *stat.Quantity `json:"hop"`
	// FramesPerXmit is frames per ndo_xdp_xmit call. Nil when unknown.
	FramesPerXmit *stat.Quantity `json:"frames-per-xmit"`
	// CountingCost is what the counting and the time stamps themselves add, in
	// ns per packet: the same chain counted less uncounted. It is measured
	// on one row of a run; nil on the others.
	CountingCost *stat.Quantity `json:"observer"`
	// Counts are packets as counted by the run's own programs.
	Counts Counts `json:"counts"`
	// Verdicts are what a program of the user's said of the packets that were sent. Nil of other rows.
	Verdicts *Verdicts `json:"verdicts,omitempty"`
	// Queues is what came by each receive queue on each CPU, Lost the frames that did not
	// get where the scenario sends them. Both are of runs on real devices.
	Queues []QueueCount `json:"queues,omitempty"`
	Lost   []LostFrames `json:"lost,omitempty"`
	// Refused says why there is no number. Empty when there is one.
	Refused string `json:"refused,omitempty"`
	// Samples are ns per packet, one a round; Rounds are the numbers of
	// those rounds, by which rows of one run are paired.
	Samples []float64 `json:"samples"`
	Rounds  []int     `json:"rounds"`
}

// QueueCount is what an XDP program saw of a receive queue on a CPU.
type QueueCount struct {
	Queue  int    `json:"queue"`
	CPU    int    `json:"cpu"`
	Frames uint64 `json:"frames"`
	// Bytes are those of the first buffer of each frame.
	Bytes uint64 `json:"bytes"`
}

// Where frames are lost.
const (
	LostMissed    = "rx-missed"       // the receiving device had no room (rx_missed_errors)
	LostNoPort    = "no-port"         // bpf_redirect_map found no device
	LostTxDropped = "tx-dropped"      // the sending device's own count (tx_dropped)
	LostRedirect  = "xdp_do_redirect" // a tracepoint saw it fail
	LostXmit      = "ndo_xdp_xmit"    // a tracepoint saw it refuse frames
)

// LostFrames are frames that were lost at one place for one reason.
type LostFrames struct {
	At     string `json:"at"`
	Error  string `json:"error,omitempty"` // the kernel's, where it is known
	Frames uint64 `json:"frames"`
}

// Counts are packets at three places of a chain.
type Counts struct {
	// Sent is what the generator sent.
	Sent uint64 `json:"sent"`
	// Redirected is what the program under test handled, and asked the
	// kernel to redirect with success.
	Redirected uint64 `json:"redirected"`
	// Received is what arrived at the end of the chain.
	Received uint64 `json:"received"`
}

// Verdicts are packets by what an XDP program said of them, as the driver counts them.
type Verdicts struct {
	// Redirect are those that xdp_do_redirect took.
	Redirect uint64 `json:"redirect"`
	TX       uint64 `json:"tx"`
	// Drop are those of XDP_DROP and of XDP_ABORTED.
	Drop uint64 `json:"drop"`
	Pass uint64 `json:"pass"`
	// Failed are redirects and XDP_TX that the kernel could not follow.
	Failed uint64 `json:"failed"`
}

// Named lists the verdicts that there are, the most frequent first, each as a share of all.
func (v Verdicts) Named() []NamedShare {
	all := []NamedShare{
		{"redirect", float64(v.Redirect)}, {"tx", float64(v.TX)}, {"drop", float64(v.Drop)}, {"pass", float64(v.Pass)},
		{"failed", float64(v.Failed)},
	}
	sum := 0.0
	for _, n := range all {
		sum += n.Share
	}
	all = slices.DeleteFunc(all, func(n NamedShare) bool { return n.Share == 0 })
	for i := range all {
		all[i].Share /= sum
	}
	slices.SortStableFunc(all, func(a, b NamedShare) int { return cmp.Compare(b.Share, a.Share) })
	return all
}

// MixedVerdict is the name of verdicts that are not one.
const MixedVerdict = "mixed"

// One is the name of the verdict of all packets but one in a thousand, MixedVerdict when there is none, empty without packets.
func (v Verdicts) One() string {
	all := v.Named()
	switch {
	case len(all) == 0:
		return ""
	case all[0].Share < 0.999:
		return MixedVerdict
	}
	return all[0].Name
}

// NamedShare is the share of packets that have a verdict, from 0 to 1.
type NamedShare struct {
	Name  string
	Share float64
}

func (r *BenchRow) check() error {
	if err := checkSamples(r.Samples, r.Rounds, func(ns float64) bool { return ns > 0 && ns <= maxNs }); err != nil {
		return err
	}
	if err := checkLabels(r.Labels); err != nil {
		return err
	}
	if len(r.Queues) > MaxRows || len(r.Lost) > MaxRows {
		return errors.New("too many queues or losses")
	}
	for _, l := range r.Lost {
		if err := checkTexts([]string{l.At, l.Error}); err != nil {
			return err
		}
	}
	measured := r.Ns != nil && r.Mpps != nil
	switch {
	case r.Refused == "" && !measured:
		return errNeither
	case r.Refused != "" && (r.Ns != nil || r.Mpps != nil):
		return errBoth
	case measured && len(r.Samples) == 0:
		return errNoSamples
	}
	err := checkQuantities([]quantity{
		{"ns", "ns", r.Ns, false},
		{"mpps", "Mpps", r.Mpps, false},
		{"hop", "ns", r.Hop, true},
		{"observer", "ns", r.CountingCost, true},
		{"frames-per-xmit", "frames", r.FramesPerXmit, false},
	})
	if err == nil && measured && math.IsNaN(r.Ns.Median) {
		return errNeither
	}
	return err
}

func (r *BenchRow) rowName() string { return r.Name }

func checkBench(d *Document[BenchRow]) error {
	if err := d.RunParts.checkNone(d.Kind); err != nil {
		return err
	}
	if err := checkReferences(d.References); err != nil {
		return err
	}
	return checkRows(d.Rows, nil)
}
