// Command peers compares forwarders: commands that send every frame that one device
// receives out by another. Each runs on a core of its own, between a generator and a
// sink that counts, in a network namespace of its own that is gone afterwards.
//
//	peers [options] NAME=COMMAND ...
//
// {in} and {out} in a command are the names of the devices. The first one is what the
// others are compared with. scripts/peers makes the commands. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/stat"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// peer is a forwarder and what it was measured to do.
type peer struct {
	name    string
	command []string
	mpps    map[string][]float64 // by output, NaN for a round without a number
	sum     map[string]rate      // by output, of all rounds
	failed  map[string]error     // the last failure
	// latencies are those at each of loads, of all rounds.
	latencies []latencies
}

// add takes the result of a round.
func (p *peer) add(kind string, r rate, failure error) {
	if failure != nil {
		p.failed[kind] = failure
		p.mpps[kind] = append(p.mpps[kind], math.NaN())
		return
	}
	p.mpps[kind] = append(p.mpps[kind], r.mpps())
	sum := p.sum[kind]
	p.sum[kind] = rate{sum.frames + r.frames, sum.core + r.core, sum.user + r.user}
}

// perFrame is how many ns a frame took in user space and in the kernel.
func (r rate) perFrame() (user, kernel float64) {
	return float64(r.user) / float64(r.frames), float64(r.core-r.user) / float64(r.frames)
}

// outputs are the devices that frames leave by.
var outputs = []string{"veth", "ifb"}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		rounds   = flags.Int("rounds", 15, "rounds, all forwarders in each")
		duration = flags.Duration("duration", time.Second, "length of a measurement")
		output   = flags.String("output", strings.Join(outputs, ","), "devices that frames leave by")
		limit    = flags.Float64("others", 5, "what other work may take of both CPUs in that time, in percent")
		latent   = flags.Bool("latency", false, "measure latencies at parts of the load, out by veth, in place of rates")
		size     = flags.Int("size", 60, "frame size in bytes, without the frame check sequence")
	)
	if err := flags.Parse(args); err != nil {
		return 2
	}
	peers, err := parse(flags.Args())
	if err != nil {
		fmt.Fprintln(stderr, "peers:", err)
		return 2
	}
	kinds := strings.Split(*output, ",")
	for _, kind := range kinds {
		if kind != "veth" && kind != "ifb" && kind != "dummy" {
			fmt.Fprintf(stderr, "peers: no output %q: veth, ifb or dummy\n", kind)
			return 2
		}
	}
	cpus, err := twoCPUs()
	switch {
	case err == nil && *latent:
		err = runLatency(ctx, stdout, stderr, peers, cpus, *rounds, *duration, *size)
	case err == nil:
		for round := range *rounds {
			for _, kind := range kinds {
				// A new order each round.
				for _, i := range rand.Perm(len(peers)) {
					p := peers[i]
					fmt.Fprintf(stderr, "round %d of %d, %s: %s\n", round+1, *rounds, kind, p.name)
					r, failure := measure(ctx, p.command, kind, *size, *duration, cpus, *limit/100)
					if ctx.Err() != nil {
						return 1
					}
					if feature.AsMissing(failure) != nil {
						fmt.Fprintln(stderr, "peers:", failure)
						return 4
					}
					p.add(kind, r, failure)
				}
			}
		}
		err = write(stdout, peers, kinds, *rounds, *duration, *size, *limit)
	}
	if err != nil {
		fmt.Fprintln(stderr, "peers:", err)
		if feature.AsMissing(err) != nil {
			return 4
		}
		return 1
	}
	return 0
}

func parse(args []string) ([]*peer, error) {
	var peers []*peer
	for _, arg := range args {
		name, command, ok := strings.Cut(arg, "=")
		fields := strings.Fields(command)
		if !ok || name == "" || len(fields) == 0 {
			return nil, fmt.Errorf("%q is not NAME=COMMAND", arg)
		}
		peers = append(peers, &peer{
			name: name, command: fields, mpps: map[string][]float64{}, sum: map[string]rate{}, failed: map[string]error{},
		})
	}
	if len(peers) == 0 {
		return nil, errors.New("name forwarders: NAME=COMMAND")
	}
	return peers, nil
}

// both are the rounds in which both have a number.
func both(a, b []float64) (x, y []float64) {
	for i := range a {
		if !math.IsNaN(a[i]) && !math.IsNaN(b[i]) {
			x, y = append(x, a[i]), append(y, b[i])
		}
	}
	return x, y
}

// ratio is the rate of a as a multiple of that of b, by the same rounds.
func ratio(a, b []float64) stat.Quantity {
	d := stat.Paired(both(b, a))
	k := func(percent float64) float64 { return 1 + percent/100 }
	return stat.Quantity{Median: k(d.Median), Low: k(d.Low), High: k(d.High), N: d.N}
}

func write(w io.Writer, peers []*peer, kinds []string, rounds int, duration time.Duration, size int, limit float64) error {
	for _, kind := range kinds {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "out by %s\tMpps\tuser\tkernel\ttimes as fast\tat most\n", kind)
		var notes []string
		for i, p := range peers {
			good, _ := both(p.mpps[kind], p.mpps[kind])
			if err := p.failed[kind]; err != nil {
				notes = append(notes, fmt.Sprintf("%s failed %d times: %v", p.name, len(p.mpps[kind])-len(good), err))
			}
			if len(good) == 0 {
				fmt.Fprintf(t, "%s\t-\n", p.name)
				continue
			}
			user, kernel := p.sum[kind].perFrame()
			fmt.Fprintf(t, "%s\t%s\t%.0f\t%.0f", p.name, quantity(stat.Summarize(good, "Mpps")), user, kernel)
			if i > 0 {
				_, least := peers[0].sum[kind].perFrame()
				most := "-" // without a frame there is nothing to compare with
				if least > 0 {
					most = fmt.Sprintf("%.3f", (user+kernel)/least)
				}
				fmt.Fprintf(t, "\t%s\t%s", quantity(ratio(peers[0].mpps[kind], p.mpps[kind])), most)
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		for _, note := range notes {
			fmt.Fprintln(w, "!", note)
		}
		fmt.Fprintln(w)
	}
	_, err := fmt.Fprintf(w, `%s
Frames of %d bytes. %d rounds of all, %v each, in a new order each time: medians
[95 %% intervals].
Mpps: frames by the time that the forwarder had its core; user and kernel: ns of
that time a frame, means. Times as fast: as %s is, paired round by round; at
most: as it would be if it took no time in user space. What was measured while
other work took more than %v %% of both CPUs was measured again.
`, machine(), size, rounds, duration, peers[0].name, limit)
	return err
}

// machine is the CPU and the kernel.
func machine() string {
	f := host.Identify(host.Options{})
	version, _, _ := strings.Cut(f.Kernel, "-")
	return fmt.Sprintf("%s; Linux %s", f.CPU, version)
}

// runLatency measures and writes the latencies of all forwarders.
func runLatency(ctx context.Context, stdout, stderr io.Writer, peers []*peer, cpus [2]int, rounds int, d time.Duration, size int) error {
	for round := range rounds {
		for _, i := range rand.Perm(len(peers)) {
			p := peers[i]
			fmt.Fprintf(stderr, "round %d of %d: %s\n", round+1, rounds, p.name)
			at, err := latency(ctx, p.command, size, d, cpus)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if feature.AsMissing(err) != nil {
				return err
			}
			if err != nil {
				p.failed[latencyKind] = err
				continue
			}
			if p.latencies == nil {
				p.latencies = make([]latencies, len(loads))
			}
			for k := range at {
				p.latencies[k].add(at[k])
			}
		}
	}
	return writeLatency(stdout, peers, rounds, d, size)
}

func quantity(q stat.Quantity) string {
	if math.IsNaN(q.Median) {
		return "-"
	}
	q.Unit = "" // the column's head has it
	return q.Text(stat.Fixed(3))
}
