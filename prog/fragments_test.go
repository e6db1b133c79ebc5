package prog

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

const fragsFlag = 1 << 5 // BPF_F_XDP_HAS_FRAGS

// fragsProgram is a program of package sample, loaded for fragments.
func fragsProgram(t testing.TB, name string) Program {
	t.Helper()
	testutil.Root(t)
	spec, err := sample.Spec()
	if err != nil {
		t.Fatal(err)
	}
	spec.Programs[name].Flags |= fragsFlag
	coll, err := sample.LoadOf(spec, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return Program{Name: name, Loaded: coll.Programs[name]}
}

// Programs that grow, shrink and rewrite packets in fragments find them whole in each run, in all numbers of fragments.
func TestFragments(t *testing.T) {
	packets := made(t, "udp4:9000,udp4:1500,udp4:4000,vlan-tcp6:8000,udp4:60000")
	for _, name := range []string{"lasttwo", "trailer", "untrailer", "sumall", "encap", "ttl"} {
		for _, o := range []Options{{}, {FirstBuffer: 1400, Metadata: make([]byte, 16)}} {
			t.Run(fmt.Sprintf("%s/%d", name, o.FirstBuffer), func(t *testing.T) {
				r := opened(t, packets, o, fragsProgram(t, name))
				checked, err := r.Check(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if m := checked[0][0]; m.Wrong() > 0 || m.Runs != uint64(2*len(packets.Frames)) {
					t.Errorf("checked: %+v", m)
				}
				if o.FirstBuffer != 0 {
					return
				}
				if _, err := r.Round(t.Context(), 200*time.Millisecond); err != nil {
					t.Fatal(err)
				}
				if m := r.Mismatches()[0][0]; m.Wrong() > 0 || m.Runs < 1000 {
					t.Errorf("timed: %+v", m)
				}
			})
		}
	}
}

// Each call of the harness has packets in equally many fragments, and a row the mean over its packets.
func TestFragmentsParts(t *testing.T) {
	packets := made(t, "udp4:9000,udp4,udp4:1500,udp4:4000,udp4:3520,udp4:3521,tcp6:7616,tcp6:7617,vlan-tcp4:9000,udp4:60000,udp4:65535")
	r := opened(t, packets, Options{}, fragsProgram(t, "pass"))
	got := map[int]int{}
	share := 0.0
	for _, row := range r.rows {
		got[row.shape.fragments] += row.count
		share += row.share
	}
	if want := fmt.Sprint(map[int]int{0: 3, 1: 3, 2: 3, 14: 1, 16: 1}); fmt.Sprint(got) != want || share < 0.999 || share > 1.001 {
		t.Errorf("packets by fragments %v, shares add up to %v; want %s and 1", got, share, want)
	}
}

// What cannot be restored, or no device gives to the program, is refused in one line.
func TestFragmentsRefused(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	packets := made(t, "udp4:9000,udp4")
	r := opened(t, packets, Options{}, fragsProgram(t, "snap")) // each packet alone comes out
	if _, err := r.Check(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "program snap cannot be replayed: it releases") {
		t.Errorf("a program that releases fragments: %v", err)
	}
	opened(t, made(t, "udp4:3520"), Options{}, fragsProgram(t, "snap")) // has none to release
	for name, f := range map[string]func() error{
		"packet 1 has 9000 bytes: a device gives fragments only to programs for them (xdp.frags)": func() error {
			_, err := New(t.Context(), packets, Options{}, sampleProgram(t, "pass"))
			return err
		},
		"a first buffer of 256 bytes: a device gives fragments only": func() error {
			_, err := New(t.Context(), made(t, "udp4"), Options{FirstBuffer: 256}, sampleProgram(t, "pass"))
			return err
		},
		"a first buffer of 13 bytes is not within 14 … 3520": func() error {
			_, err := New(t.Context(), packets, Options{FirstBuffer: 13}, fragsProgram(t, "pass"))
			return err
		},
		"packet 1 of 9000 bytes is in fragments: such": func() error {
			r, err := New(t.Context(), packets, Options{}, fragsProgram(t, "pass"))
			if err != nil {
				return err
			}
			_, err = r.Singles(t.Context(), 0, 1)
			return errors.Join(err, r.Close())
		},
	} {
		if err := f(); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%q, want %q", err, name)
		}
	}
}

// A veth lets no fragment grow: a trailer is dropped there as in its poll, what touches no end is replayed, and a program
// that shortens fragments is refused.
func TestFragmentsOfDevice(t *testing.T) {
	lab := veth.Namespace(t)
	device, _ := veth.Pair(t, lab, "fa", "fb")
	packets := made(t, "udp4:9000,udp4:8000,udp4:800")
	for _, test := range []struct {
		program string
		verdict uint32 // of packets in fragments
		want    string
	}{
		{"lasttwo", 3, ""}, {"trailer", 1, ""},
		{"untrailer", pass, "program untrailer cannot be replayed on device"},
	} {
		p := fragsProgram(t, test.program)
		err := lab.Do(func() (err error) {
			r, err := New(t.Context(), packets, Options{Device: uint32(device.Index)}, p)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			if got := r.Clean()[0].Outcomes[0].Verdict; got != test.verdict {
				t.Errorf("%s: %s, want %s", test.program, Verdict(got), Verdict(test.verdict))
			}
			if err := r.SetRows([]Row{{Name: "all", Packets: []int{0, 1, 2}}}); err != nil {
				return err
			}
			checked, err := r.Check(t.Context())
			if err == nil && checked[0][0].Wrong() > 0 {
				t.Errorf("%s: %+v", test.program, checked[0][0])
			}
			return err
		})
		if (err == nil) != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.program, err, test.want)
		}
	}
}

// Each length in fragments has calls of its own with a device: there are not many.
func TestManyLengths(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var names []string
	row := Row{Name: "all"}
	for i := range maxLengths + 1 {
		names, row.Packets = append(names, fmt.Sprintf("udp4:%d", 4000+i)), append(row.Packets, i)
	}
	r, err := New(t.Context(), made(t, strings.Join(names, ",")), Options{Device: 1}, fragsProgram(t, "pass"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.SetRows([]Row{row}); err == nil || !strings.HasPrefix(err.Error(), "packets in fragments of 33 lengths") {
		t.Error(err)
	}
}

// Packets in fragments are for programs for them.
func TestPacketsFor(t *testing.T) {
	packets := made(t, "udp4:9000,udp4,udp4:3520")
	for _, test := range []struct {
		programs []Program
		kept     int
	}{
		{[]Program{fragsProgram(t, "pass")}, 3},
		{[]Program{sampleProgram(t, "pass")}, 2},
		{[]Program{fragsProgram(t, "pass"), sampleProgram(t, "pass")}, 2},
	} {
		p, err := packets.For(test.programs...)
		if err != nil || len(p.Frames) != test.kept || p.Fragmented != 3-test.kept {
			t.Errorf("%d programs: %+v (%v), want %d packets", len(test.programs), p, err, test.kept)
		}
	}
	if _, err := made(t, "udp4:9000").For(sampleProgram(t, "pass")); err == nil ||
		!strings.Contains(err.Error(), "1 above 3520 bytes, which a device gives in fragments, to programs for them alone (xdp.frags)") {
		t.Errorf("none is left: %v", err)
	}
}

// Kernels before 6.18 say that they take no first buffer of a size.
func TestFirstBufferMissing(t *testing.T) {
	r, err := New(t.Context(), made(t, "udp4:9000"), Options{FirstBuffer: 256}, fragsProgram(t, "pass"))
	if missing, ok := errors.AsType[*feature.Missing](err); ok {
		if missing.Since != "6.18" {
			t.Error(err)
		}
		testutil.SkipMissing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if o := r.Clean()[0].Outcomes[0]; o.Length != 9000 || o.Verdict != pass {
		t.Errorf("%+v", o)
	}
}
