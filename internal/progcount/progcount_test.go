package progcount

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/progcost"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/prog"
)

// A tick in some passes changes no count; where passes do not agree it is their median; and a clock that does not count
// instructions is refused.
func TestCount(t *testing.T) {
	null := [][]uint64{{50, 50, 17050, 50, 50}, {50, 50, 50, 50, 50}}
	c := new(Counted)
	err := c.count(prog.Singles{
		Null: null, Program: [][]uint64{{81, 81, 81, 16081, 81}, {60, 61, 62, 63, 64}}, Wrong: []int{0, 2}, First: "packet 2: other bytes",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Instructions, []int64{31, 12}) || !slices.Equal(c.Varies, []int{1}) || c.Wrong[1] != 2 || len(c.Wrong) != 1 {
		t.Errorf("%+v", c)
	}
	for _, null := range [][][]uint64{{{50, 50, 50}, {51, 51, 51}}, {{50, 51, 52}, {50, 50, 50}}} {
		if err := new(Counted).count(prog.Singles{Null: null, Program: null, Wrong: make([]int, 2)}); err == nil ||
			!strings.Contains(err.Error(), "does not count instructions") {
			t.Errorf("%v: %v", null, err)
		}
	}
}

// A NAT draws the port of a new flow at random: bytes with it are not compared, those of other packets are.
func TestLoadAgain(t *testing.T) {
	testutil.Root(t)
	path := filepath.Join(t.TempDir(), "lb.o")
	if err := os.WriteFile(path, sample.Object(), 0o600); err != nil {
		t.Fatal(err)
	}
	target, err := program.Parse(path + ":nat")
	if err != nil {
		t.Fatal(err)
	}
	packets, err := prog.MakePackets("udp4,tcp4,arp")
	if err != nil {
		t.Fatal(err)
	}
	g := guestJob{Options: program.Options{Run: true}}
	clean := func() []uint64 {
		opened, err := target.Open(t.Context(), g.Options)
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		replay, err := prog.New(t.Context(), packets, prog.Options{}, progcost.Replayable(opened))
		if err != nil {
			t.Fatal(err)
		}
		defer replay.Close()
		c := new(Counted)
		c.outcomes(replay.Clean()[0])
		if err := c.loadAgain(t.Context(), target, g, packets); err != nil {
			t.Fatal(err)
		}
		if c.Varying == 0 {
			t.Error("no packet varies")
		}
		return c.Hashes
	}
	first := clean()
	if second := clean(); !slices.Equal(first, second) || !slices.ContainsFunc(first, func(h uint64) bool { return h != 0 }) {
		t.Errorf("hashes %x, then %x", first, second)
	}
}

// Packets come out of the guest's file as they went in.
func TestPacked(t *testing.T) {
	frames := [][]byte{{1, 2, 3}, {}, make([]byte, 1500)}
	got, err := unpacked(packed(frames))
	if err != nil || len(got) != 3 {
		t.Fatalf("%d frames, %v", len(got), err)
	}
	for i := range frames {
		if string(got[i]) != string(frames[i]) {
			t.Errorf("frame %d: %d bytes, want %d", i, len(got[i]), len(frames[i]))
		}
	}
	for _, b := range [][]byte{{1}, {5, 0, 0, 0, 1}, {255, 255, 255, 255}} {
		if _, err := unpacked(b); err == nil {
			t.Errorf("%v: no error", b)
		}
	}
}

// A job that no guest has room for is refused, and what a guest gets is what the options say.
func TestJob(t *testing.T) {
	job := func(n, size int) *Job {
		j := &Job{By: progcost.ByVerdict, Packets: &prog.Packets{}, Program: &program.Packed{
			Name: "lb", Object: []byte("\x7fELF"), Dumps: map[string][]byte{"b": []byte("[2]"), "a": []byte("[1]")},
			Options: program.Options{Set: map[string]string{"port": "1"}},
		}}
		for range n {
			j.Packets.Frames = append(j.Packets.Frames, make([]byte, size))
		}
		return j
	}
	for want, j := range map[string]*Job{
		"no packet is to be counted":    job(0, 0),
		"16385 packets: at most 16384":  job(MaxPackets+1, 0),
		"packets of 80 MiB: at most 64": job(8, 10<<20),
	} {
		if err := j.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	j := job(2, 60)
	if err := j.Validate(); err != nil {
		t.Fatal(err)
	}
	files, err := j.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`{"Name":"lb","Options":{"Set":{"port":"1"}`, `"Maps":{"a":"/prog/map-0.json","b":"/prog/map-1.json"}`} {
		if !strings.Contains(string(files[jobFile]), want) {
			t.Errorf("%s, without %s", files[jobFile], want)
		}
	}
	if string(files["/prog/map-1.json"]) != "[2]" || string(files[objectFile]) != "\x7fELF" || len(files) != 5 {
		t.Errorf("%d files", len(files))
	}
}

// A packet of each kind is traced, again where a tick fell into its run; others are like it.
func TestTrace(t *testing.T) {
	c := &Counted{Instructions: []int64{30, 10, 30, 30}, Verdicts: []uint32{3, 2, 3, 1}, Lengths: []int{60, 60, 60, 60}}
	packets := &prog.Packets{Frames: [][]byte{make([]byte, 60), make([]byte, 60), make([]byte, 60), make([]byte, 60)}}
	slots := 0
	err := c.trace(t.Context(), packets, 50, func(null bool, packet int) (int, uint64, error) {
		slots++
		switch {
		case null:
			return slots - 1, 50, nil
		case packet == 1: // never without a tick
			return slots - 1, 9000, nil
		case slots == 2:
			return slots - 1, 16000, nil
		}
		return slots - 1, uint64(50 + c.Instructions[packet]), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []TracedRun{{0, 0, 50}, {0, 2, 80}, {3, 11, 80}}
	if diff := cmp.Diff(want, c.Traced); diff != "" || !slices.Equal(c.Stands, []int{1, 0, 1, 2}) {
		t.Errorf("%v, traced (-want +got):\n%s", c.Stands, diff)
	}
}

// Where redirects go is in a row's hash, unless it is not known of one of its packets.
func TestRedirects(t *testing.T) {
	c := &Counted{Verdicts: []uint32{progcost.Redirected, progcost.Redirected, 2}, Targets: []string{"device 1", "device 2", ""}}
	first, both := c.redirects([]int{0}), c.redirects([]int{0, 1, 2})
	c.Targets[1] = "device 3"
	if first == "" || both == "" || c.redirects([]int{0}) != first || c.redirects([]int{0, 1, 2}) == both || c.redirects([]int{2}) != "" {
		t.Errorf("%q, %q, now %q", first, both, c.redirects([]int{0, 1, 2}))
	}
	c.Targets[1] = progcost.Unknown
	if got := c.redirects([]int{0, 1}); got != "" {
		t.Errorf("of one that is not known: %q", got)
	}
}

// A copy of the object notes where it redirects to, in subprograms too. All devices are the loopback in a guest: entries are compared.
func TestTargets(t *testing.T) {
	testutil.Root(t)
	object := testutil.Compile(t, "../program/lines/testdata/redirect.bpf.c")
	dump := filepath.Join(t.TempDir(), "ports.json")
	if err := os.WriteFile(dump, []byte(`[{"key":["0x00","0x00","0x00","0x00"],"value":["0x01","0x00","0x00","0x00"]},
		{"key":["0x01","0x00","0x00","0x00"],"value":["0x01","0x00","0x00","0x00"]}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	packets, err := prog.MakePackets("udp4")
	if err != nil {
		t.Fatal(err)
	}
	job := guestJob{Options: program.Options{Run: true, Maps: map[string]string{"ports": dump}}}
	for name, want := range map[string]string{
		"first": "entry 0 of ports", "second": "entry 1 of ports",
		"direct": "device 7", "everywhere": "all of ports", "random": progcost.Unknown, "pass": "",
	} {
		target, err := program.Parse(object + ":" + name)
		if err != nil {
			t.Fatal(err)
		}
		to, err := targets(t.Context(), target, job, packets)
		testutil.SkipMissing(t, err)
		if err != nil || len(to) != 1 || to[0] != want {
			t.Errorf("%s: %q, %v; want %s", name, to, err, want)
		}
	}
}
