package poll

import (
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/internal/xdppath"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// What a filter lets through is of the polls of its device, of all CPUs, whoever else polls by
// the same function.
func TestFilter(t *testing.T) {
	lab := veth.Namespace(t)
	in, out := veth.Pair(t, lab, "in", "out")
	quiet, _ := veth.Pair(t, lab, "quiet", "peer")
	drop := veth.Program(t, asm.Mov.Imm(asm.R0, 1 /* XDP_DROP */), asm.Return())
	if err := errors.Join(in.Attach(drop, link.XDPDriverMode), quiet.Attach(drop, link.XDPDriverMode)); err != nil {
		t.Fatal(err)
	}
	k, err := kernel.OpenLive()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer k.Close()
	stop := flood.Start(t, lab, out.Index)
	defer stop()
	for _, test := range []struct {
		name    string
		ifindex int
		kept    bool
	}{{"flooded", in.Index, true}, {"quiet", quiet.Index, false}} {
		var napis []uint64
		if err := lab.Do(func() (err error) { napis, err = xdppath.NAPIs(k, test.ifindex); return err }); err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		f, err := New(napis)
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		samples, inPoll := 0, 0
		each := func(s *perf.Sample) {
			samples++
			for _, addr := range s.Chain {
				if symbol, _, ok := k.Symbols.Find(addr); ok && symbol.Name == "veth_poll" {
					inPoll++
					return
				}
			}
		}
		cpus, err := perf.Online()
		if err != nil {
			t.Fatal(err)
		}
		var all []*perf.Sampler
		for _, cpu := range cpus {
			s, err := perf.NewSampler(perf.Clock, cpu, 4000)
			if err != nil {
				testutil.SkipMissing(t, err)
				t.Fatal(err)
			}
			if err := errors.Join(f.Attach(s.FD()), s.Start()); err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		for range 8 {
			time.Sleep(100 * time.Millisecond)
			for _, s := range all {
				s.Read(each)
			}
		}
		for _, s := range all {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
			s.Read(each)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		counts, err := f.Counts()
		if err != nil {
			t.Fatal(err)
		}
		if int(counts.Kept) != samples || counts.Taken <= counts.Kept || (samples > 0) != test.kept {
			t.Errorf("%s: %d samples, %+v", test.name, samples, counts)
		}
		// Polls begin and end outside of veth_poll, and some chains cannot be followed.
		if test.kept && inPoll < samples*8/10 {
			t.Errorf("%s: %d of %d samples were in veth_poll", test.name, inPoll, samples)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRefused(t *testing.T) {
	testutil.Root(t)
	if _, err := New(make([]uint64, Max+1)); err == nil {
		t.Error("more NAPI instances than there is room for: no error")
	}
	err := testutil.Capable(t, func() error {
		f, err := New(nil)
		if err == nil {
			return errors.Join(errors.New("no error"), f.Close())
		}
		if _, missing := errors.AsType[*feature.Missing](err); !missing {
			return err
		}
		return nil
	}, unix.CAP_NET_ADMIN)
	if err != nil {
		t.Error(err)
	}
}
