package host

import (
	"encoding/binary"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// words are instructions as bytes.
func words(words ...uint32) (code []byte) {
	for _, w := range words {
		code = binary.LittleEndian.AppendUint32(code, w)
	}
	return code
}

// Vectors, as tramp_ventry of Linux 7.3 makes them; the loop's number and what calls firmware are patched at boot.
var (
	// msr tpidrro_el0, x30; mov x30, #24; b . + 4; subs x30, x30, #1; b.ne; dsb nsh; isb; adrp x30; add; add x30, x30, #0x404; ret
	loopVector = words(0xd51bd07e, 0xd280031e, 0x14000001, 0xf10007de, 0x54ffffc1, 0xd503379f, 0xd5033fdf, 0x9000001e, 0x910003de,
		0x911013de, 0xd65f03c0)
	// msr; clearbhb; isb; adrp; add; add; ret
	clearVector = words(0xd51bd07e, 0xd50322df, 0xd5033fdf, 0x9000001e, 0x910003de, 0x911013de, 0xd65f03c0)
	// msr; adrp; add; stp x0, x1, [sp, #-16]!; stp x2, x3; mov w0, #0x80003fff; hvc #0; ldp; ldp; add; ret
	firmwareVector = words(0xd51bd07e, 0x9000001e, 0x910003de, 0xa9bf07e0, 0xa9bf0fe2, 0x320137e0, 0xd4000002, 0xa8c10fe2, 0xa8c107e0,
		0x911013de, 0xd65f03c0)
	// msr; bl 2f; b .; 2: mrs x30, ttbr1_el1; …; add; ret
	kptiVector = words(0xd51bd07e, 0x94000002, 0x14000000, 0xd538203e, 0x911013de, 0xd65f03c0)
)

func TestReadEntry(t *testing.T) {
	for _, test := range []struct {
		name string
		code []byte
		want string // empty for code that is not known
	}{
		{"loop", loopVector, "a loop of 24 branches: 80 instructions before the kernel's own vectors"},
		{"clearbhb", clearVector, "clearbhb: 7 instructions before the kernel's own vectors"},
		{"firmware", firmwareVector, "firmware by hvc (SMCCC_ARCH_WORKAROUND_3): 11 instructions before the kernel's own vectors"},
		{"page tables", kptiVector, "a switch of page tables (KPTI): 5 instructions before the kernel's own vectors"},
		{"page tables and a loop", append(loopVector[:5*4:5*4], kptiVector[4:]...),
			"a loop of 24 branches, a switch of page tables (KPTI): 78 instructions before the kernel's own vectors"},
		{"no end", loopVector[:len(loopVector)-4], ""},
		{"nothing", nil, ""},
	} {
		e, ok := readEntry(test.code)
		if ok != (test.want != "") || ok && e.String() != test.want {
			t.Errorf("%s: %v, %v, want %q", test.name, e, ok, test.want)
		}
	}
	if got := (entry{kpti: true, instructions: 5, exit: 9}).String(); !strings.HasSuffix(got,
		"vectors, 9 where user space is entered again, an indirect branch among them") {
		t.Error(got)
	}
	if got := (entry{}).String(); got != "nothing against predictions" {
		t.Error(got)
	}
}

// What KPTI adds at the end of a system call is between two known instructions and in the trampoline; without them it is not known.
func TestReadExit(t *testing.T) {
	toUser := words(0xd503201f, // nop
		0xd518601d, 0xd538d09d, 0x9000001e, 0xf87d6bde, 0xd2ffe01d, 0xd518c01e, 0xf9407bfe, 0x910543ff, // msr far_el1, x29; …
		0xd61f03a0, 0xd69f03e0) // br x29; eret
	exit := words(0xd538203d, 0xd14007bd, 0xb24e07bd, 0xd518203d, 0xd538601d, 0xd69f03e0, 0xd503379f)
	for _, test := range []struct {
		name         string
		toUser, exit []byte
		want         int
	}{
		{"both", toUser, exit, 9 + 6},
		{"no trampoline", toUser, exit[:5*4], 0},
		{"no jump", toUser[:9*4], exit, 0},
		{"nothing is put aside", toUser[2*4:], exit, 0},
		{"nothing", nil, nil, 0},
	} {
		if n, ok := readExit(test.toUser, test.exit); ok != (test.want != 0) || ok && n != test.want {
			t.Errorf("%s: %d, %v, want %d", test.name, n, ok, test.want)
		}
	}
}

// What each CPU executes is read through its own copies of variables, and what cannot be read is said, with what Linux chooses for the CPU.
func TestEntries(t *testing.T) {
	const (
		at                      = 0xffff800080010000
		vectorAt, dataAt        = at + 0x20, at + 0x30
		second                  = 0x100 // where the second CPU's copies are
		loopTable, own, smcCall = at + 0x800, at + 0x1000, at + 0x1800
	)
	memory := make([]byte, 0x2000)
	put := func(addr, value uint64) { binary.LittleEndian.PutUint64(memory[addr-at:], value) }
	put(at+8, second)
	put(vectorAt, loopTable)
	put(vectorAt+second, own)
	put(dataAt+second+8, smcCall)
	copy(memory[loopTable-at+fromUser:], loopVector)
	named := []ksym.Symbol{
		{Addr: at, Type: 'D', Name: "__per_cpu_offset"}, {Addr: vectorAt, Type: 'D', Name: "this_cpu_vector"},
		{Addr: dataAt, Type: 'D', Name: "bp_hardening_data"}, {Addr: own, Type: 'T', Name: "vectors"},
		{Addr: smcCall, Type: 't', Name: "call_smc_arch_workaround_1"},
	}
	const n1 = "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n"
	m := &machine{tree: tree{fstest.MapFS{
		"proc/cpuinfo":                                      {Data: []byte(n1)},
		"sys/devices/system/cpu/online":                     {Data: []byte("0-1\n")},
		"sys/devices/system/cpu/vulnerabilities/spectre_v2": {Data: []byte("Mitigation: CSV2, BHB\n")},
	}}}
	for _, test := range []struct {
		name    string
		symbols []ksym.Symbol
		broken  bool // the code is not known
		want    string
	}{
		{"read", named, false,
			"a loop of 24 branches: 80 instructions before the kernel's own vectors; on other CPUs call_smc_arch_workaround_1"},
		{"no symbols of data", named[3:], false, "cannot be read: this kernel has no symbol this_cpu_vector"},
		{"not known", named, true, "cannot be read: the code of CPU 0's vectors"},
	} {
		symbols, err := ksym.New(test.symbols)
		if err != nil {
			t.Fatal(err)
		}
		text := memory
		if test.broken {
			text = make([]byte, len(memory))
			copy(text, memory[:loopTable-at])
		}
		k := kernel.New(ktext.Bytes{Addr: at, Code: text}, symbols, nil)
		k.Arch = "arm64"
		b := branches{arch: "arm64"}
		m.addEntries(&b, k)
		row := m.entryRow(b)
		if !strings.Contains(row.Found, test.want) || (row.Level == LevelUnknown) != (test.name != "read") {
			t.Errorf("%s: %+v", test.name, row)
		}
		if row.Level == LevelUnknown && row.Means != "Linux 7.3 chooses a loop of 24 branches for this CPU where it has no clearbhb" {
			t.Errorf("%s: %s", test.name, row.Means)
		}
	}
}
