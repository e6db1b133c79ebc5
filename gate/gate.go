package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/lab"
	"github.com/unthunk/unthunk/internal/progcost"
	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/prog"
)

// Program is an XDP program of an object file, as clang writes it. A specification that was loaded already is not enough:
// the guest relocates the program for its own kernel, by what only the file has.
type Program struct {
	// Object is the path of the file. Bytes, when it is not nil, is what is in it: then there need be no file.
	Object string
	Bytes  []byte
	// Name is the program's function or section, when the object has several XDP programs.
	Name string
	// Set gives global variables their values before the program is loaded: "port": "443".
	Set map[string]string
	// Maps fills maps, each from a file that bpftool -j map dump wrote; Sizes are the numbers of entries of maps.
	Maps  map[string]string
	Sizes map[string]uint32
	// TailCalls puts programs of the object into its tail-call tables, by index.
	TailCalls map[string]map[uint32]string
}

// Options of a count. The zero value is one guest with all that QEMU can emulate.
type Options struct {
	// By divides the packets into rows: "verdict" (which is also ""), "flow", "length" or "packet".
	By string
	// CPU is the QEMU model, by which a kernel chooses its mitigations, and its JIT some instructions.
	CPU string
	// Append is added to the kernel's command line.
	Append string
	// Metadata stands before each packet: up to [prog.MaxMetadata] bytes, in steps of 4.
	Metadata []byte
	// Limit is what the guest may take; 0 is five minutes.
	Limit time.Duration
}

// Row is a class of packets, and what the program takes of one.
type Row struct {
	// Name is "all", or what the packets have in common: "verdict/tx".
	Name    string
	Packets int
	// Instructions are those that the program executes more than one that only passes, helpers included: the mean of the
	// packets. Least and Most are single packets'.
	Instructions float64
	Least, Most  float64
	// Verdicts is how many packets came out with each: "pass", "tx".
	Verdicts map[string]int
}

// Result is what a guest counted.
type Result struct {
	// Release is the kernel's.
	Release string
	// Rows are all packets, then classes of them.
	Rows []Row
	// Warnings say in a sentence each what makes the numbers less worth.
	Warnings []string

	counted *record.Lab
}

// Save writes what was counted to a file, for "unthunk gate --base FILE NEW": where it was counted nothing is judged.
func (r *Result) Save(file string) error { return record.Save(file, r.counted) }

// Row is the row of that name, nil when there is none.
func (r *Result) Row(name string) *Row {
	for i := range r.Rows {
		if r.Rows[i].Name == name {
			return &r.Rows[i]
		}
	}
	return nil
}

// MaxPackets is how many packets can be counted.
const MaxPackets = progcount.MaxPackets

// Run counts what a program takes a packet in a guest that runs kernel: the folder or file of a package, a vmlinuz, or
// debian:6.12-cloud, which apt downloads once. It fails the test when the guest does not boot, when its kernel refuses the
// program, and when packets come out of it otherwise from run to run. t.Context() ends it.
func Run(t testing.TB, kernel string, p Program, packets *prog.Packets, o Options) *Result {
	t.Helper()
	result, err := run(t.Context(), kernel, p, packets, o)
	if err != nil {
		t.Fatal(fmt.Errorf("count instructions on %s: %w", kernel, err))
	}
	return result
}

func run(ctx context.Context, kernel string, p Program, packets *prog.Packets, o Options) (*Result, error) {
	packets, err := packets.OneBuffer(progcount.NoFragments)
	if err != nil {
		return nil, err
	}
	job := &progcount.Job{Target: p.Object, Packets: packets, Metadata: o.Metadata, By: progcost.ByVerdict,
		Source: record.PacketSource{Source: "packets", Seen: packets.Seen, Kept: len(packets.Frames), Hash: progcount.Hash(packets)}}
	if o.By != "" {
		job.By = progcost.By(o.By)
	}
	if job.Program, err = p.pack(ctx); err != nil {
		return nil, err
	}
	self, err := lab.Executable()
	if err != nil {
		return nil, err
	}
	plan := lab.Plan{Kernels: []string{kernel}, CPUs: []string{o.CPU}, Appends: []string{o.Append}, Limit: o.Limit, Program: job}
	guests, err := lab.Run(ctx, plan, self, nil)
	if err != nil {
		return nil, err
	}
	if refused, ok := errors.AsType[*lab.RefusedError](guests[0].Err); ok && len(refused.Log) > 0 {
		return nil, fmt.Errorf("%w; the verifier's last lines:\n%s", refused, strings.Join(lastOf(refused.Log), "\n"))
	}
	if err := guests[0].Err; err != nil {
		return nil, err
	}
	l := lab.Record(guests, nil, nil)
	doc := record.New[record.LabRow]("lab", host.Identify(host.Options{}))
	doc.Rows, doc.Warnings = l.Rows, l.Warnings
	l.Document = *doc
	return resultOf(l)
}

// lastOf are the last lines of a log.
func lastOf(log []string) []string { return log[max(0, len(log)-8):] }

func (p Program) pack(ctx context.Context) (*program.Packed, error) {
	o := program.Options{Set: p.Set, Maps: p.Maps, Sizes: p.Sizes, TailCalls: p.TailCalls}
	if p.Bytes != nil {
		return program.PackObject(ctx, p.Bytes, p.Name, o)
	}
	text := p.Object
	if text == "" {
		return nil, errors.New("no object is named")
	}
	if p.Name != "" {
		text += ":" + p.Name
	}
	target, err := program.Parse(filepath.Clean(text))
	if err != nil {
		return nil, err
	}
	return program.Pack(ctx, target, o)
}

func resultOf(l *record.Lab) (*Result, error) {
	r := &Result{counted: l}
	for _, row := range l.Rows {
		if row.Refused != "" {
			return nil, fmt.Errorf("row %s: %s", row.Labels["class"], row.Refused)
		}
		r.Release = row.Release
		r.Rows = append(r.Rows, Row{
			Name: row.Labels["class"], Packets: row.Program.Packets, Instructions: *row.Instructions,
			Least: row.Program.Least, Most: row.Program.Most, Verdicts: maps.Clone(row.Program.Verdicts),
		})
	}
	for _, w := range l.Warnings {
		r.Warnings = append(r.Warnings, w.Text)
	}
	return r, nil
}

// init makes the test binary the first process of a guest, and what that starts there. Only such a guest has the job file
// that is asked for. It is done here because TestMain is the importer's, and tests must not run in the guest.
func init() {
	if guest.First() {
		guest.Init()
	}
	if slices.Equal(os.Args[1:], []string{lab.ProgramVerb}) && guest.Guest() {
		os.Exit(inGuest())
	}
}

// inGuest counts, and writes what the host reads.
func inGuest() int {
	m, err := lab.ProgramInGuest(context.Background(), false)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, strings.Join(strings.Fields(err.Error()), " "))
		return 1
	}
	return 0
}
