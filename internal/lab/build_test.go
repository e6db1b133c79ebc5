package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/unpack"
)

// Of a configuration those options are kept that matter for packets, each once a guest.
func TestReadConfig(t *testing.T) {
	_, kept, err := readConfig(strings.NewReader("CONFIG_HZ=250\nCONFIG_VETH=y\nCONFIG_NET=y\nCONFIG_NET_VENDOR_X=m\nCONFIG_SND=y\n" +
		"CONFIG_BPF_JIT=y\nCONFIG_NODES_SHIFT=10\nCONFIG_CC_VERSION_TEXT=\"gcc 13\"\nCONFIG_X86_64=" + strings.Repeat("1", record.MaxOption)))
	if want := []string{"BPF_JIT=y", "HZ=250", "NET=y", "NODES_SHIFT=10", "VETH=y"}; err != nil || !slices.Equal(kept, want) {
		t.Errorf("%q, want %q, %v", kept, want, err)
	}
	c := CellResult{Cell: Cell{Kernel: "a", NIC: Veth}, Measurement: &Measurement{Build: &record.LabBuild{Config: "x", Options: kept},
		Bulks: []BulkCount{{Bulk: 1, Refused: "no"}, {Bulk: 16, Refused: "no"}}}}
	rows := c.rows([]Row{{DefaultScenario, 1}, {DefaultScenario, 16}})
	if len(rows[0].Build.Options) != 5 || rows[1].Build.Options != nil || rows[1].Build.Config != "x" {
		t.Errorf("%+v, %+v", rows[0].Build, rows[1].Build)
	}
}

// The order of options, comments, and what names the build or its tools, are no part of a configuration.
func TestConfigSum(t *testing.T) {
	sum := func(text string) string {
		t.Helper()
		s, _, err := readConfig(strings.NewReader(text))
		if err != nil || len(s) != 64 {
			t.Fatalf("%q: %v", s, err)
		}
		return s
	}
	const text = "# Linux/x86 6.12.1\nCONFIG_VETH=y\n# CONFIG_SMP is not set\nCONFIG_HZ=250\nCONFIG_BUILD_SALT=\"6.12.1\"\n"
	same := "CONFIG_HZ=250\r\nCONFIG_VETH=y\nCONFIG_CC_VERSION_TEXT=\"gcc 13\"\nCONFIG_LOCALVERSION=\"-x\"\nCONFIG_GCC_VERSION=130000"
	if sum(text) != sum(same) {
		t.Error("a configuration and the same in another order differ")
	}
	hz, module := strings.Replace(text, "=250", "=1000", 1), strings.Replace(text, "VETH=y", "VETH=m", 1)
	for _, other := range []string{hz, module, text + "CONFIG_X=y"} {
		if sum(text) == sum(other) {
			t.Errorf("%q has the sum of another", other)
		}
	}
	for _, bad := range []string{"", "# CONFIG_X is not set\n", "rubbish\x00", strings.Repeat("#", maxConfig+1)} {
		if s, _, err := readConfig(strings.NewReader(bad)); err == nil {
			t.Errorf("%.40q: %s", bad, s)
		}
	}
}

// FuzzConfig sums what no kernel was configured with.
func FuzzConfig(f *testing.F) {
	f.Add("CONFIG_VETH=y\n# CONFIG_SMP is not set\nCONFIG_HZ=250\n")
	f.Add("CONFIG_\nCONFIG_=\n\r\rCONFIG_LOCALVERSION")
	f.Fuzz(func(t *testing.T, text string) {
		var sum string
		var kept []string
		var err error
		testutil.Allocates(t, uint64(1<<20+64*len(text)), func() { sum, kept, err = readConfig(strings.NewReader(text)) })
		if (err == nil) != (len(sum) == 64) {
			t.Fatalf("%q, %v", sum, err)
		}
		if err := (&record.LabRow{Refused: "no", Build: &record.LabBuild{Options: kept}}).Check(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestConfigOf(t *testing.T) {
	dir := t.TempDir()
	const text = "CONFIG_VETH=y\n"
	want, _, err := readConfig(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	file, device := filepath.Join(dir, "config-6.1"), filepath.Join(dir, "config-6.3")
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Symlink("/dev/zero", device)); err != nil {
		t.Fatal(err)
	}
	if got, _, err := configOf(guest.Kernel{Config: file}); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if got, _, err := configOf(guest.Kernel{}); err != nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{device, dir, filepath.Join(dir, "none")} {
		if got, _, err := configOf(guest.Kernel{Config: bad}); err == nil {
			t.Errorf("%s: %q", bad, got)
		}
	}
}

// Which BPF programs counted the guest says: its unthunk may be of another build than this one.
func TestProgramSum(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const other = "0123456789ab"
	if got, err := programSum(self, other); err != nil || !strings.HasSuffix(got, " "+other) {
		t.Errorf("%q, %v", got, err)
	}
	own := ownBuild("gcc", chain.Sum()).Unthunk
	if got, err := programSum(self, own); err != nil || !strings.HasSuffix(got, " "+own) {
		t.Errorf("%q of %q, %v", got, own, err)
	}
	first, second := counting(chain.Sum(), 1), counting(chain.Sum(), 2)
	if first == second || len(first) != 2*sumBytes {
		t.Errorf("versions of the counting code: %q, %q", first, second)
	}
	if got, err := programSum(self, second); err != nil || !strings.HasSuffix(got, " "+second) {
		t.Errorf("%q of %q, %v", got, second, err)
	}
	for _, bad := range []string{"", "0123456789", other + "cd", "0123456789xy", "\x1b[2J", other + ".", other + ".1", other + ".x", ".2"} {
		if got, err := programSum(self, bad); err == nil || got != "" {
			t.Errorf("%q: %q", bad, got)
		}
	}
	large := filepath.Join(t.TempDir(), "large") // takes no room on the disk
	if err := errors.Join(os.WriteFile(large, nil, 0o600), os.Truncate(large, unpack.Max+1)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/proc/self/status": "", large: "more than 512 MiB", os.DevNull: "not a regular file"} {
		if got, err := programSum(path, other); err == nil || got != "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s, which is no program: %q, %v", path, got, err)
		}
	}
}

// What a base has counted is counted again, on another kernel.
func TestPlanOf(t *testing.T) {
	l := recordtest.GateLab("a")
	p, err := PlanOf(l, "b")
	if err != nil || !slices.Equal(p.Kernels, []string{"b"}) || !slices.Equal(p.Bulks, []int{1, 16}) || len(p.Cells()) != 1 ||
		p.Cells()[0] != (Cell{Kernel: "b", NIC: Veth}) {
		t.Errorf("%+v, %v", p, err)
	}
	l.Rows[1].Labels = map[string]string{"kernel": "a", "cpu": "EPYC", "append": "x", "nic": "igb", "dma": "swiotlb", "bulk": "16"}
	if p, err = PlanOf(l, "b"); err != nil || !slices.Contains(p.Cells(), Cell{"b", "EPYC", "x", "igb", Swiotlb}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []map[string]string{{"bulk": "x"}, {"bulk": "0"}, {"bulk": "1", "append": "\n"}, {"bulk": "1", "nic": "x"},
		{"bulk": "1", "dma": "x", "nic": "igb"}, {}} {
		l.Rows[1].Labels = bad
		if _, err := PlanOf(l, "b"); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := PlanOf(&record.Lab{}, "b"); err != nil {
		t.Error(err) // what has no row is no base, which is said elsewhere
	}
}

// A record of many command lines and CPU models has a guest for each two of them: they are counted, and not made.
func TestPlanOfMany(t *testing.T) {
	l := &record.Lab{}
	for i := range record.MaxRows {
		text := fmt.Sprint(i)
		l.Rows = append(l.Rows, record.LabRow{Name: text, Labels: map[string]string{"bulk": "1", "cpu": text, "append": text}})
	}
	testutil.Allocates(t, 64<<20, func() {
		if _, err := PlanOf(l, "k"); err == nil || !strings.Contains(err.Error(), "100000000 guests: at most 256") {
			t.Error(err)
		}
	})
}

func TestLastLines(t *testing.T) {
	c := CellResult{Console: "one\n\n \x1b[2Jtwo\r\nthree\n\n" + strings.Repeat("x", 2*maxWords) + "\n"}
	got := c.LastLines(3)
	if len(got) != 3 || got[0] != "�[2Jtwo" || got[1] != "three" || len(got[2]) != maxWords {
		t.Errorf("%q", got)
	}
	if got := (&CellResult{}).LastLines(3); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
