package functions_test

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// version is that of a kernel: 6, 12.
type version [2]int

func parseVersion(release string) (v version) {
	fmt.Sscanf(release, "%d.%d", &v[0], &v[1])
	return v
}

// before and after compare with the version of a name, which may be empty: "always".
func (v version) before(since string) bool {
	other := parseVersion(since)
	return since != "" && slices.Compare(v[:], other[:]) < 0
}

func (v version) after(until string) bool {
	other := parseVersion(until)
	return until != "" && slices.Compare(v[:], other[:]) > 0
}

// names are the functions of one kernel by their names in the source.
type names struct {
	release string
	version version
	// fixed is set for a kernel whose compiler is known: what it inlines is too.
	fixed bool
	has   map[string]bool
}

func namesOf(release string, table *ksym.Table) names {
	n := names{release: release, version: parseVersion(release), has: make(map[string]bool)}
	for _, s := range table.Module("") {
		if s.Text() {
			n.has[functions.Source(s.Name)] = true
		}
	}
	return n
}

// kernels are the running one and those of Debian that the cache of guests holds: 6.12
// and 6.1, which other tests download, and what else is there for x86-64.
func kernels(t *testing.T) (all []names) {
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		table, err := ksym.Live()
		if err == nil {
			all = append(all, namesOf(strings.TrimSpace(string(release)), table))
		} else {
			t.Logf("the running kernel is left out: %v", err)
		}
	}
	for _, series := range []string{"6.12", "6.1"} {
		t.Run(series, func(t *testing.T) { guesttest.Kernel(t, series) })
	}
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := os.ReadDir(cache)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		tree, err := ktext.OpenTree(t.Context(), filepath.Join(cache, dir.Name(), "root"))
		if err != nil || tree.Vmlinuz == "" || strings.HasSuffix(tree.Release, "-"+guest.ARM64) {
			continue // apt's own state, or code that ktext does not read
		}
		img, err := ktext.OpenFile(t.Context(), tree.Vmlinuz)
		if err != nil {
			t.Fatal(err)
		}
		n := namesOf(tree.Release, img.Table)
		n.fixed = strings.HasSuffix(tree.Release, "-cloud-amd64")
		all = append(all, n)
	}
	return all
}

// conditions are functions that a kernel has whenever it has what an entry is absent
// without.
var conditions = map[string]string{
	"CONFIG_PAGE_POOL":   "page_pool_create",
	"CONFIG_XDP_SOCKETS": "xsk_bind",
	"CONFIG_IOMMU_DMA":   "iommu_setup_dma_ops",
	"CONFIG_INTEL_IOMMU": "dmar_table_init",
}

// inlined are static functions that Debian's compilers put into their callers, by the
// first numbers of the releases.
var inlined = map[string][]string{
	"__napi_poll":                   {"5.10"},
	"page_pool_return_netmem":       {"5.10", "6.1"},
	"skb_defer_free_flush":          {"6.1", "6.12", "6.16", "6.17"},
	"__irq_exit_rcu":                {"5.10"},
	"__netif_reschedule":            {"5.10", "7.3"},
	"net_rps_action_and_irq_enable": {"5.10"},
	"cpu_map_bpf_prog_run_xdp":      {"6.1"},
	"cpu_map_bpf_prog_run":          {"6.1"},
	"__xsk_rcv":                     {"5.10"},
	"xsk_rcv":                       {"6.1", "6.12", "6.16", "6.17", "6.18", "7.2", "7.3"},
	"xdp_test_run_batch":            {"6.1"},
	"bpf_overflow_handler":          {"6.12", "6.16", "6.17", "6.18", "7.2", "7.3"},
}

// TestKernels compares the table with the names of each kernel at hand. It fails for a
// function that a kernel has under none of its names though it should: it was renamed, or
// is gone. It fails for a name that is there after its last version. Names that no kernel
// at hand has, and those that one has sooner than mainline, by a backport, are logged.
func TestKernels(t *testing.T) {
	all := kernels(t)
	if len(all) == 0 {
		testutil.Missing(t, "a kernel's names")
	}
	for _, f := range functions.Table() {
		if strings.Contains(f.Name, "*") || f.What == "" {
			continue // a pattern, or one of a list that has no versions
		}
		for _, k := range all {
			checkFunction(t, f, k)
		}
		for _, n := range f.Names() {
			if !slices.ContainsFunc(all, func(k names) bool { return k.has[n.Name] }) {
				t.Logf("no kernel at hand has %s: %s", n.Name, cmp.Or(f.Absent, "it is of other versions"))
			}
		}
	}
}

// TestInto looks for the code of each function that a kernel at hand has no symbol of: the
// caller that it is said to be in has one.
func TestInto(t *testing.T) {
	all := kernels(t)
	if len(all) == 0 {
		testutil.Missing(t, "a kernel's names")
	}
	has := func(k names, f functions.Function) bool {
		return slices.ContainsFunc(f.Names(), func(n functions.Name) bool { return k.has[n.Name] })
	}
	for _, f := range functions.Table() {
		if f.Into == "" {
			continue
		}
		apart := 0
		for _, k := range all {
			caller, ok := functions.Find(f.Into)
			switch {
			case has(k, f):
				apart++
			case !slices.ContainsFunc(f.Names(), k.version.due): // it came later, or is gone
			case !k.has[f.Into] && !(ok && has(k, caller)):
				t.Errorf("%s has neither %s nor %s, which it is said to be put into", k.release, f.Name, f.Into)
			}
		}
		if apart == 0 {
			t.Errorf("no kernel at hand has %s apart from %s", f.Name, f.Into)
		}
	}
}

// due tells whether a kernel of the version has the name.
func (v version) due(n functions.Name) bool { return !v.before(n.Since) && !v.after(n.Until) }

// required tells whether a kernel that is built as k is has to have the function.
func required(f functions.Function, k names) bool {
	switch {
	case !slices.ContainsFunc(f.Names(), k.version.due):
		return false
	case f.Absent == "":
		return true
	case f.Absent == "static":
		return k.fixed && !slices.Contains(inlined[f.Name], fmt.Sprintf("%d.%d", k.version[0], k.version[1]))
	}
	return k.has[conditions[f.Absent]]
}

func checkFunction(t *testing.T, f functions.Function, k names) {
	t.Helper()
	var found, lacks []string
	for _, n := range f.Names() {
		switch {
		case !k.has[n.Name] && k.version.due(n):
			lacks = append(lacks, n.Name)
		case !k.has[n.Name]:
		case k.version.after(n.Until):
			t.Errorf("%s has %s, whose last version is said to be %s", k.release, n.Name, n.Until)
		case k.version.before(n.Since):
			t.Logf("%s has %s, which came with %s: a backport?", k.release, n.Name, n.Since)
		}
		if k.has[n.Name] {
			found = append(found, n.Name)
		}
	}
	// A static function is under one of its names; the others may be inlined.
	if required(f, k) && (len(found) == 0 || len(lacks) > 0 && f.Absent != "static") {
		t.Errorf("%s has no %s, and of its other names %q: was it renamed?",
			k.release, strings.Join(lacks, ", "), found)
	}
}
