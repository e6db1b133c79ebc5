package branch_test

import (
	"errors"
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/branch"
)

// Scan and Decode see the same instructions, and each byte belongs to one.
func TestScanIsDecode(t *testing.T) {
	type instruction struct {
		Addr   uint64
		Len    int
		Kind   branch.Kind
		Target uint64
	}
	for name, code := range map[string][]byte{
		"function":   function,
		"empty":      nil,
		"cut short":  function[:len(function)-2],
		"no code":    {0x06, 0x62, 0xff},
		"breakpoint": {0xcc, 0x0f, 0x0b},
	} {
		var scanned, decoded []instruction
		for s := range branch.Scan(code, addr) {
			scanned = append(scanned, instruction{s.Addr, s.Len, s.Kind, s.Target})
		}
		next := addr
		for i := range branch.Decode(code, addr) {
			if i.Addr != next {
				t.Errorf("%s: instruction at %#x, want %#x", name, i.Addr, next)
			}
			next += uint64(i.Len)
			decoded = append(decoded, instruction{i.Addr, i.Len, i.Kind, i.Target})
		}
		if next != addr+uint64(len(code)) {
			t.Errorf("%s: %d bytes decoded, want %d", name, next-addr, len(code))
		}
		if diff := cmp.Diff(decoded, scanned); diff != "" {
			t.Errorf("%s: Decode and Scan differ:\n%s", name, diff)
		}
	}
}

// A loop over an iterator may be left at its first value.
func TestLeaveLoop(t *testing.T) {
	first := func(name string, n int) {
		if n != 1 {
			t.Errorf("%s: %d values, want 1", name, n)
		}
	}
	first("EachBranch", count(branch.EachBranch(function, addr, nil, nil, nil)))
	first("Decode", count(branch.Decode(function, addr)))
	first("Scan", count(branch.Scan(function, addr)))
	first("DecodeARM64", count(branch.DecodeARM64(function, addr)))
}

func count[T any](seq iter.Seq[T]) (n int) {
	for range seq {
		n++
		break
	}
	return n
}

// Without names and facts, branches are there with what the code shows.
func TestNoNames(t *testing.T) {
	var got []branch.Class
	for _, b := range branch.Branches(function, addr, nil, nil, nil) {
		got = append(got, b.Class)
	}
	want := []branch.Class{
		branch.ClassDirect, branch.ClassRegister, branch.ClassMemory, branch.ClassConditional, branch.ClassDirect,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// A thunk that no symbol names is known by its code.
	its := func(addr uint64) []byte { return []byte("\xff\xe0\xcc") }
	code := []byte("\xe8\x1b\x00\x00\x00") // call to the upper half of a cache line
	sites, _ := branch.Sites(code, addr, nil, its)
	if diff := cmp.Diff([]branch.Site{{Kind: branch.SiteITS, Register: "rax", Target: addr + 0x20}}, sites); diff != "" {
		t.Error(diff)
	}
	for _, line := range branch.Annotate(function, addr, nil, nil) {
		if line.Text == "" || len(line.Bytes) == 0 {
			t.Errorf("empty line: %+v", line)
		}
	}
}

// EachBranch yields one value in memory that the next one takes; Branches
// returns copies.
func TestEachBranchIsBranches(t *testing.T) {
	var each []branch.Branch
	for b := range branch.EachBranch(function, addr, resolve, nil, nil) {
		each = append(each, *b)
	}
	if diff := cmp.Diff(branch.Branches(function, addr, resolve, nil, nil), each); diff != "" {
		t.Error(diff)
	}
}

func TestBrokenSection(t *testing.T) {
	nowhere := func(uint64) bool { return false }
	data := make([]byte, 16)
	for _, name := range []string{".altinstructions", "__jump_table", ".static_call_sites", ".retpoline_sites"} {
		var facts branch.Facts
		if err := facts.AddSection(name, data, 0, nowhere, nil, nil); !errors.Is(err, branch.ErrLayout) {
			t.Errorf("%s: %v", name, err)
		}
		if facts.StaticKeys != nil || facts.StaticCalls != nil || facts.Alternatives != nil || facts.RetpolineSites != nil {
			t.Errorf("%s: a broken section was added", name)
		}
	}
	var facts branch.Facts
	if err := facts.AddSection(".data", data, 0, nowhere, nil, nil); err != nil {
		t.Errorf("a section of no interest: %v", err)
	}
}
