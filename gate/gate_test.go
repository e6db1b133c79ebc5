package gate

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/bpf/balancer"
	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/prog"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// kernel is what tests boot. They are skipped where it cannot be had.
func kernel(t *testing.T) string {
	t.Helper()
	const name = "debian:6.12-cloud"
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Resolve(t.Context(), cache, name); err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	if err := guest.Available(guest.AMD64); err != nil {
		testutil.SkipMissing(t, err)
	}
	return name
}

func packets(t *testing.T, names string) *prog.Packets {
	t.Helper()
	p, err := prog.MakePackets(names)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The test binary is the guest's first process: a real program is counted, by what its packets have in common.
func TestRun(t *testing.T) {
	got := Run(t, kernel(t), Program{Bytes: sample.Object(), Name: "nat"}, packets(t, "udp4,tcp4,arp"), Options{})
	if !strings.HasPrefix(got.Release, "6.12.") || len(got.Rows) != 3 {
		t.Fatalf("%+v", got)
	}
	all, tx, pass := got.Row("all"), got.Row("verdict/tx"), got.Row("verdict/pass")
	if all == nil || tx == nil || pass == nil || all.Packets != 3 || tx.Packets != 1 || pass.Packets != 2 {
		t.Fatalf("%+v", got)
	}
	if sum := tx.Instructions + 2*pass.Instructions; all.Instructions != sum/3 {
		t.Errorf("all %v, of %v and twice %v", all.Instructions, tx.Instructions, pass.Instructions)
	}
	// A packet that is rewritten looks into a hash; the others are only looked at.
	if tx.Instructions < 100 || pass.Instructions < 1 || pass.Instructions > 40 || got.Row("none") != nil {
		t.Errorf("tx %+v, pass %+v", tx, pass)
	}
	file := filepath.Join(t.TempDir(), "counted.json")
	if err := got.Save(file); err != nil {
		t.Fatal(err)
	}
	saved, err := record.Load(file)
	if err != nil || saved.Lab() == nil || len(saved.Lab().Rows) != 3 || len(saved.Lab().Rows[0].Program.Source.Hash) != 16 {
		t.Errorf("%+v, %v", saved, err)
	}
	if tx.Verdicts["tx"] != 1 || pass.Least > pass.Most {
		t.Errorf("tx %+v, pass %+v", tx, pass)
	}
}

// What cannot be counted is said before a guest is booted, or fails with it.
func TestRefuses(t *testing.T) {
	for want, p := range map[string]Program{
		"no object is named": {},
		"there is no file":   {Object: "testdata/none.o"},
		"3 XDP programs":     {Bytes: balancer.Before()},
		"no program nosuch":  {Bytes: balancer.Before(), Name: "nosuch"},
		"not an ELF object":  {Bytes: []byte("text")},
		"no global variable": {Bytes: balancer.Before(), Name: "balancer", Set: map[string]string{"nosuch": "1"}},
	} {
		if _, err := run(t.Context(), "debian:6.12-cloud", p, packets(t, "udp4"), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	good := Program{Bytes: sample.Object(), Name: "pass"}
	for want, o := range map[string]Options{
		`rows by "nothing"`:    {By: "nothing"},
		"metadata of 3 bytes":  {Metadata: []byte{1, 2, 3}},
		"too short for a boot": {Limit: 1},
	} {
		if _, err := run(t.Context(), "debian:6.12-cloud", good, packets(t, "udp4"), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := run(t.Context(), "testdata", good, &prog.Packets{}, Options{}); err == nil || !strings.Contains(err.Error(), "no packet") {
		t.Errorf("no packets: %v", err)
	}
}
