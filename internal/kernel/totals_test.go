package kernel

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// totalled are Debian's cloud kernels from Debian 11 to unstable whose branches are counted.
var totalled = []string{"5.10", "6.1", "6.12", "6.18", "7.2", "7.3"}

// TestTotals holds the totals of a kernel in files against its bytes, which package branch holds against objdump, and against
// the lists of sites that the build made: no branch is in no function or in two, none is of another class than its site.
func TestTotals(t *testing.T) {
	testutil.Slow(t)
	for _, series := range totalled {
		t.Run(series, func(t *testing.T) {
			k, err := OpenTree(t.Context(), guesttest.Kernel(t, series), "")
			if err != nil {
				t.Fatal(err)
			}
			total, err := k.Totals(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			text, start, err := k.AllText()
			if err != nil {
				t.Fatal(err)
			}
			linear := make(map[uint64]bool)
			for b := range branch.EachBranch(text, start, nil, nil, nil) {
				linear[b.Addr] = true
			}
			type site struct {
				addr uint64
				why  string
			}
			sites := make(map[site]bool)
			counts := make(map[string]int)
			for _, p := range patches(t, k.Text.(*ktext.Image)) {
				at := site{p.from, p.why}
				if p.from-start < uint64(len(text)) && !sites[at] {
					sites[at] = true
					counts[p.why]++
				}
			}
			found := 0
			for _, p := range places(t, k) {
				found++
				name := k.name(p.addr)
				if !linear[p.addr] && !overlapping[name] {
					t.Errorf("%s at %s, %#x, is none by itself", p.class, name, p.addr)
				}
				if (p.class == branch.ClassReturnThunk || p.class == branch.ClassSRSO) && !sites[site{p.addr, "return"}] {
					counts["other return"]++
					if !unlisted[name] {
						t.Errorf("%s at %s, %#x, is no site", p.class, name, p.addr)
					}
				}
				delete(sites, site{p.addr, map[branch.Class]string{branch.ClassParavirt: "pv_ops"}[p.class]})
				delete(linear, p.addr)
			}
			for addr := range linear {
				t.Errorf("no branch at %#x, in %s", addr, k.name(addr))
			}
			for s := range sites {
				if s.why == "pv_ops" {
					t.Errorf("no pv_ops at %#x, in %s", s.addr, k.name(s.addr))
				}
			}
			b := total.Branches
			sum := 0
			for _, n := range b {
				sum += n
			}
			if sum != found {
				t.Errorf("%d branches, %d in the totals", found, sum)
			}
			returns := b[branch.ClassReturnThunk] + b[branch.ClassSRSO]
			t.Logf("%s: %d functions, %d branches; retpolines %d of %d sites, return thunks %d of %d, static calls %d of %d, pv_ops %d of %d; "+
				"bare returns %d, other indirect %d", k.Release, total.Functions, found, b[branch.ClassRetpoline], counts["retpoline"],
				returns, counts["return"], b[branch.ClassStaticCall], counts["static call"], b[branch.ClassParavirt], counts["pv_ops"],
				b[branch.ClassReturn], b[branch.ClassRegister]+b[branch.ClassMemory]+b[branch.ClassLfence])
			for why, n := range map[string]int{"retpoline": b[branch.ClassRetpoline], "return": returns - counts["other return"],
				"static call": b[branch.ClassStaticCall], "pv_ops": b[branch.ClassParavirt]} {
				if n != counts[why] || n == 0 {
					t.Errorf("%d branches of %s sites, of which there are %d", n, why, counts[why])
				}
			}
		})
	}
}

// overlapping are functions that begin inside an instruction of the one before, so that it is harmless when speculated.
var overlapping = map[string]bool{"zen_return_thunk": true, "retbleed_return_thunk": true, "srso_safe_ret": true}

// unlisted are functions with jumps to the return thunk that objtool does not list, so that they stay: it did not read the
// assembler of 5.10, nor the vDSO's folder up to 6.1, and in srso_alias_untrain_ret, where _text is since 6.18, the jump is no
// return.
var unlisted = map[string]bool{"blake2s_compress_ssse3": true, "blake2s_compress_avx512": true, "blake2s_compress": true,
	"swsusp_arch_suspend": true, "restore_registers": true, "fixup_vdso_exception": true, "srso_alias_untrain_ret": true, "_text": true}

// name is the function that addr is in.
func (k *Kernel) name(addr uint64) string {
	s, _, _ := k.Symbols.Find(addr)
	return s.Name
}

// patch is a piece of text that the kernel writes when it boots or runs.
type patch struct {
	from, to uint64
	why      string
}

const (
	trampoline = "trampoline of a static call"
	lfence     = 3 // bytes of one before an indirect branch
)

// patches are those of an image, by address.
func patches(t testing.TB, img *ktext.Image) (out []patch) {
	t.Helper()
	exec := func(addr uint64) bool {
		return slices.ContainsFunc(img.Sections, func(s ktext.Section) bool { return s.Exec && addr-s.Addr < uint64(len(s.Data)) })
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	add := func(why string, from uint64, size int) { out = append(out, patch{from, from + uint64(size), why}) }
	for _, s := range img.Sections {
		switch s.Name {
		case ".altinstructions":
			all, err := branch.Alternatives(s.Data, s.Addr, exec)
			check(err)
			for _, a := range all {
				why := "alternative"
				if a.Direct {
					why = "pv_ops"
				}
				add(why, a.Addr, a.Len)
			}
		case ".parainstructions":
			all, err := branch.Parainstructions(s.Data, exec)
			check(err)
			for _, p := range all {
				add("pv_ops", p.Addr, p.Len)
			}
		case ".retpoline_sites", ".return_sites", ".call_sites", ".ibt_endbr_seal", ".smp_locks":
			data := s.Data
			for s.Name == ".smp_locks" && len(data) >= 4 && binary.LittleEndian.Uint32(data[len(data)-4:]) == 0 {
				data = data[:len(data)-4] // up to the end of its page
			}
			all, err := branch.Relative(data, s.Addr, exec)
			check(err)
			kind := map[string]string{".retpoline_sites": "retpoline", ".return_sites": "return", ".call_sites": "call",
				".ibt_endbr_seal": "endbr64", ".smp_locks": "lock"}[s.Name]
			for _, site := range all {
				add(kind, site, map[string]int{"retpoline": 6, "return": 6, "call": 5, "endbr64": 4, "lock": 1}[kind])
			}
		}
	}
	between := func(from, to string) ([]byte, uint64) {
		a, _ := img.Table.Lookup(from)
		b, ok := img.Table.Lookup(to)
		data := make([]byte, b.Addr-a.Addr)
		if !ok || img.ReadAddr(data, a.Addr) != nil {
			return nil, 0
		}
		return data, a.Addr
	}
	data, addr := between("__start___jump_table", "__stop___jump_table")
	jumps, err := branch.JumpTable(data, addr, exec)
	check(err)
	for _, j := range jumps {
		add("static key", j.Addr, 5)
	}
	data, addr = between("__start_static_call_sites", "__stop_static_call_sites")
	calls, err := branch.StaticCallSites(data, addr, exec)
	check(err)
	for _, c := range calls {
		add("static call", c.Addr, 6)
	}
	for data, _ = between("__start_mcount_loc", "__stop_mcount_loc"); len(data) >= 8; data = data[8:] {
		add("tracer", binary.LittleEndian.Uint64(data), 5)
	}
	for _, s := range img.Table.Module("") {
		if strings.HasPrefix(s.Name, "__SCT__") {
			add(trampoline, s.Addr, 8)
		}
	}
	slices.SortStableFunc(out, func(a, b patch) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.why, b.why)) })
	return out
}

// place is a branch of a kernel.
type place struct {
	addr  uint64
	class branch.Class
}

// places are all branches of a kernel, in order.
func places(t testing.TB, k *Kernel) (out []place) {
	t.Helper()
	start, end, err := k.textBounds()
	if err == nil {
		err = k.newCounter().each(start, end, func(b *branch.Branch) { out = append(out, place{b.Addr, b.Class}) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// comparison is what a running kernel and its file differ in.
type comparison struct {
	// Symbols is how many the running kernel has, Apart those that only one has or at another address, at most 20.
	Symbols int
	Apart   []string
	// File and Live are the totals of the branches, Moves what makes the one of the other: how many branches of a class
	// became what, by which kind of patch.
	File, Live map[branch.Class]int
	Moves      map[string]int
	// Unexplained are differences where there is no patch, Lost patched sites of indirect branches and returns
	// where there is none in the running kernel; at most 20 of each.
	Unexplained, Lost []string
}

// imageFile is where a guest has its kernel's file.
const imageFile = "/vmlinuz"

// TestInGuest compares the running kernel of a guest with its file and prints what it found.
func TestInGuest(t *testing.T) {
	if !guest.Guest() {
		testutil.Missing(t, "a guest that TestLiveTotals boots")
	}
	img, err := ktext.OpenFile(t.Context(), imageFile)
	if err != nil {
		t.Fatal(err)
	}
	live, err := OpenLive()
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	file := New(img, img.Table, nil)
	var c comparison
	few := func(list *[]string, format string, args ...any) {
		if len(*list) < 20 {
			*list = append(*list, fmt.Sprintf(format, args...))
		}
	}
	symbols := make(map[ksym.Symbol]int)
	for _, s := range live.Symbols.Module("") {
		c.Symbols++
		symbols[s]++
	}
	for _, s := range file.Symbols.Module("") {
		symbols[s]--
	}
	for s, n := range symbols {
		if n != 0 {
			few(&c.Apart, "%+v: %+d", s, n)
		}
	}
	total, err := live.Totals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Live = total.Branches
	c.compare(places(t, file), places(t, live), patches(t, img), few)
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(b))
}

// compare finds the moves between the branches of a file and those of the running kernel.
func (c *comparison) compare(file, live []place, patches []patch, few func(list *[]string, format string, args ...any)) {
	c.File, c.Moves = make(map[branch.Class]int), make(map[string]int)
	for _, p := range file {
		c.File[p.class]++
	}
	classes := make(map[uint64]branch.Class)
	move := func(addr uint64, from, to branch.Class) {
		// The last patch that begins at addr or before it; the longest is 255 bytes.
		i, _ := slices.BinarySearchFunc(patches, addr+1, func(p patch, addr uint64) int { return cmp.Compare(p.from, addr) })
		for i--; i >= 0 && patches[i].from+256 > addr; i-- {
			if addr < patches[i].to {
				c.Moves[string(cmp.Or(from, "nothing")+" → "+cmp.Or(to, "nothing"))+", "+patches[i].why]++
				return
			}
		}
		few(&c.Unexplained, "%#x: %q in the file, %q live", addr, from, to)
	}
	i, j := 0, 0
	for i < len(file) || j < len(live) {
		switch {
		case j == len(live) || i < len(file) && file[i].addr < live[j].addr:
			move(file[i].addr, file[i].class, "")
			i++
		case i == len(file) || file[i].addr > live[j].addr:
			move(live[j].addr, "", live[j].class)
			classes[live[j].addr] = live[j].class
			j++
		default:
			if file[i].class != live[j].class {
				move(file[i].addr, file[i].class, live[j].class)
			}
			classes[live[j].addr] = live[j].class
			i, j = i+1, j+1
		}
	}
	begin, end := live[0].addr, live[len(live)-1].addr
	trampolines := make(map[uint64]bool) // each has a return until it has a target
	for _, p := range patches {
		trampolines[p.from] = trampolines[p.from] || p.why == trampoline
	}
	is := func(addr uint64) branch.Branch { return branch.Branch{Class: classes[addr]} }
	for _, p := range patches {
		switch {
		case p.from < begin || p.from > end || trampolines[p.from]:
		case p.why == "retpoline" && !is(p.from).Indirect() && !is(p.from+lfence).Indirect(), p.why == "return" && !is(p.from).Returns():
			few(&c.Lost, "%s site %#x: %q", p.why, p.from, classes[p.from])
		}
	}
}

// TestLiveTotals boots kernels and holds the totals of what runs there against those of the file: the symbols are the same,
// and each branch that differs stands where the kernel's lists say that it is patched.
func TestLiveTotals(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, series := range totalled {
		t.Run(series, func(t *testing.T) {
			k := guesttest.Guest(t, series)
			m := guest.Machine{Kernel: k, Init: self, Append: "nokaslr", Files: map[string]string{imageFile: k.Image}}
			begun := time.Now()
			report, err := m.Run(t.Context(), guest.Command{Args: []string{guest.Self, "-test.run=^TestInGuest$"}, Timeout: 20 * time.Minute})
			testutil.SkipMissing(t, err)
			if err != nil {
				t.Fatalf("%v; console:\n%s", err, report.Console)
			}
			out := report.Results[0]
			var c comparison
			if err := json.NewDecoder(strings.NewReader(string(out.Stdout))).Decode(&c); err != nil || out.Exit != 0 {
				t.Fatalf("%v: %s%s%s", err, out.Stdout, out.Stderr, out.Err)
			}
			t.Logf("%s: %v; %d symbols", k.Release, time.Since(begun).Round(time.Second), c.Symbols)
			t.Logf("file %v", c.File)
			t.Logf("live %v", c.Live)
			for _, move := range slices.Sorted(maps.Keys(c.Moves)) {
				t.Logf("%6d %s", c.Moves[move], move)
			}
			if len(c.Apart)+len(c.Unexplained)+len(c.Lost) > 0 {
				t.Errorf("symbols apart: %q\nbranches that differ: %q\nlost: %q", c.Apart, c.Unexplained, c.Lost)
			}
			for move, n := range c.Moves {
				classes, _, _ := strings.Cut(move, ", ")
				from, to, _ := strings.Cut(classes, " → ")
				c.File[branch.Class(from)] -= n
				c.File[branch.Class(to)] += n
			}
			delete(c.File, "nothing")
			maps.DeleteFunc(c.File, func(_ branch.Class, n int) bool { return n == 0 })
			if !maps.Equal(c.File, c.Live) {
				t.Errorf("totals %v of the file with what was patched, %v of the running kernel", c.File, c.Live)
			}
		})
	}
}
