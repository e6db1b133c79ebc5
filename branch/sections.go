package branch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// ErrLayout says that a section does not hold what its name says: an entry
// points at no code, or the size fits no layout of any kernel.
var ErrLayout = errors.New("no known layout")

// Exec tells whether code can be at an address. Entries that point elsewhere
// show that a section is broken, or its layout another one.
type Exec func(addr uint64) bool

// Alternative is one entry of .altinstructions: code that is replaced at boot
// on CPUs with a feature.
type Alternative struct {
	// Addr and Len are the code that stands there, Replacement and
	// ReplacementLen the code in .altinstr_replacement that may take its
	// place. Lengths are in bytes. Direct branches of the replacement go
	// where they go from there.
	Addr, Replacement   uint64
	Len, ReplacementLen int
	// Feature is the CPU feature, word*32+bit as in cpufeatures.h.
	Feature uint16
	// Not is set when it is replaced where the feature is absent.
	Not bool
	// Direct is set when an indirect call becomes a direct one to what its
	// slot holds (ALT_FLAG_DIRECT_CALL, Linux 6.8).
	Direct bool

	// old is set for the layouts up to Linux 6.2, whose kernels number some
	// features differently.
	old bool
}

// alternativeLayouts are the sizes of struct alt_instr:
// 14 bytes with 32 bits of flags and feature (Linux 6.3),
// 12 bytes with 16 bits of feature (Linux 5.13 and stable kernels of 2022),
// 13 bytes with a padlen after the lengths (Linux 4.1).
var alternativeLayouts = []int{14, 12, 13}

// Alternatives reads .altinstructions, which stands at addr. The layout is
// found by trial: every pointer must be to code. The error wraps [ErrLayout].
func Alternatives(data []byte, addr uint64, exec Exec) ([]Alternative, error) {
	if len(data) == 0 {
		return nil, nil
	}
	for _, size := range alternativeLayouts {
		if len(data)%size != 0 {
			continue
		}
		if all, ok := alternatives(data, addr, size, exec); ok {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read .altinstructions of %d bytes: %w", len(data), ErrLayout)
}

func alternatives(data []byte, addr uint64, size int, exec Exec) ([]Alternative, bool) {
	out := make([]Alternative, 0, len(data)/size)
	for off := 0; off+size <= len(data); off += size {
		e := data[off:][:size]
		at := addr + uint64(off)
		a := Alternative{
			Addr:        at + relative(e),
			Replacement: at + 4 + relative(e[4:]),
			Feature:     binary.LittleEndian.Uint16(e[8:]),
		}
		if size == 14 {
			flags := binary.LittleEndian.Uint16(e[10:])
			a.Not, a.Direct = flags&1 != 0, flags&2 != 0
			a.Len, a.ReplacementLen = int(e[12]), int(e[13])
			if flags > 7 {
				return nil, false
			}
		} else {
			a.old = true
			// ALTINSTR_FLAG_INV of Linux 5.16 to 6.2.
			a.Not = a.Feature&0x8000 != 0
			a.Feature &^= 0x8000
			a.Len, a.ReplacementLen = int(e[10]), int(e[11])
		}
		// There are 20 to 24 words of features.
		if a.Feature >= 64*32 || a.Len == 0 || !exec(a.Addr) ||
			a.ReplacementLen > a.Len || a.ReplacementLen > 0 && !exec(a.Replacement) {
			return nil, false
		}
		out = append(out, a)
	}
	return out, true
}

// Jump is one entry of __jump_table: a place that a static key switches
// between a jump and a nop.
type Jump struct {
	// Addr is the place, Target where its jump goes.
	Addr, Target uint64
	// Key is the address of the static_key.
	Key uint64
	// Likely is set when the key's true means fall through.
	Likely bool
}

// JumpTable reads __jump_table, which stands at addr: 16 bytes an entry with
// relative pointers (Linux 4.20). In a running kernel it still points into the
// init sections that were freed, which exec must accept.
func JumpTable(data []byte, addr uint64, exec Exec) ([]Jump, error) {
	const size = 16
	if len(data)%size != 0 {
		return nil, fmt.Errorf("read __jump_table of %d bytes: %w", len(data), ErrLayout)
	}
	out := make([]Jump, 0, len(data)/size)
	for off := 0; off < len(data); off += size {
		e, at := data[off:][:size], addr+uint64(off)
		key := binary.LittleEndian.Uint64(e[8:])
		j := Jump{
			Addr:   at + relative(e),
			Target: at + 4 + relative(e[4:]),
			Key:    at + 8 + key&^3,
			Likely: key&1 != 0,
		}
		if !exec(j.Addr) || !exec(j.Target) {
			return nil, fmt.Errorf("read __jump_table: entry at %#x points at %#x: %w", at, j.Addr, ErrLayout)
		}
		out = append(out, j)
	}
	return out, nil
}

// StaticCall is one entry of .static_call_sites.
type StaticCall struct {
	// Addr is the call or the jump.
	Addr uint64
	// Key is the address of the static_call_key; of a module's site whose
	// key is not exported it is the trampoline.
	Key uint64
	// Tail is set for a tail call.
	Tail bool
}

// StaticCallSites reads .static_call_sites, which stands at addr: 8 bytes an
// entry with relative pointers (Linux 5.10).
func StaticCallSites(data []byte, addr uint64, exec Exec) ([]StaticCall, error) {
	const size = 8
	if len(data)%size != 0 {
		return nil, fmt.Errorf("read .static_call_sites of %d bytes: %w", len(data), ErrLayout)
	}
	out := make([]StaticCall, 0, len(data)/size)
	for off := 0; off < len(data); off += size {
		e, at := data[off:][:size], addr+uint64(off)
		key := at + 4 + relative(e[4:])
		s := StaticCall{Addr: at + relative(e), Key: key &^ 3, Tail: key&1 != 0}
		if !exec(s.Addr) {
			return nil, fmt.Errorf("read .static_call_sites: entry at %#x points at %#x: %w", at, s.Addr, ErrLayout)
		}
		out = append(out, s)
	}
	return out, nil
}

// Relative reads a section of 32-bit relative pointers to code, which stands
// at addr: .retpoline_sites and .return_sites (Linux 5.16, 5.19),
// .call_sites, .ibt_endbr_seal.
func Relative(data []byte, addr uint64, exec Exec) ([]uint64, error) {
	if len(data)%4 != 0 {
		return nil, fmt.Errorf("read sites of %d bytes: %w", len(data), ErrLayout)
	}
	out := make([]uint64, 0, len(data)/4)
	for off := 0; off < len(data); off += 4 {
		at := addr + uint64(off)
		site := at + relative(data[off:])
		if !exec(site) {
			return nil, fmt.Errorf("read sites: entry at %#x points at %#x: %w", at, site, ErrLayout)
		}
		out = append(out, site)
	}
	return out, nil
}

// ParavirtSite is one entry of .parainstructions.
type ParavirtSite struct {
	Addr uint64
	// Type is the index of the operation in pv_ops, Len the bytes of the
	// call and of the room behind it.
	Type uint8
	Len  int
}

// Parainstructions reads .parainstructions (up to Linux 6.7): an absolute
// pointer and two bytes, 16 bytes apart, the last one without its padding.
func Parainstructions(data []byte, exec Exec) ([]ParavirtSite, error) {
	const stride, least = 16, 10
	var out []ParavirtSite
	for off := 0; off < len(data); off += stride {
		e := data[off:]
		if len(e) < least {
			return nil, fmt.Errorf("read .parainstructions of %d bytes: %w", len(data), ErrLayout)
		}
		p := ParavirtSite{Addr: binary.LittleEndian.Uint64(e), Type: e[8], Len: int(e[9])}
		if !exec(p.Addr) {
			return nil, fmt.Errorf("read .parainstructions: entry %d points at %#x: %w", off/stride, p.Addr, ErrLayout)
		}
		out = append(out, p)
	}
	return out, nil
}

// relative is the signed 32-bit number that b begins with.
func relative(b []byte) uint64 {
	return uint64(int32(binary.LittleEndian.Uint32(b)))
}

// AddSection adds what the section of that name says: .altinstructions,
// __jump_table, .static_call_sites, .retpoline_sites, .return_sites,
// .parainstructions, .call_sites or .ibt_endbr_seal. Others are ignored. data
// must have its relocations applied; addr is where it stands. resolve names
// keys and targets, text gives the bytes of replacements; both may be nil.
//
// Nothing is added when the section is broken: the error wraps [ErrLayout].
func (f *Facts) AddSection(name string, data []byte, addr uint64, exec Exec, resolve Resolver, text Follow) error {
	switch name {
	case ".altinstructions":
		return f.addAlternatives(data, addr, exec, resolve, text)
	case "__jump_table":
		jumps, err := JumpTable(data, addr, exec)
		if err != nil {
			return err
		}
		for _, j := range jumps {
			fact := "jmp " + resolve.name(j.Target)
			if key := resolve.within(j.Key); key != "" {
				fact += ", key " + key
			}
			put(&f.StaticKeys, j.Addr, fact)
		}
	case ".static_call_sites":
		calls, err := StaticCallSites(data, addr, exec)
		if err != nil {
			return err
		}
		for _, c := range calls {
			key := resolve.name(c.Key)
			key = strings.TrimPrefix(strings.TrimPrefix(key, "__SCK__"), "__SCT__")
			put(&f.StaticCalls, c.Addr, key)
		}
	case ".parainstructions":
		sites, err := Parainstructions(data, exec)
		if err != nil {
			return err
		}
		for _, p := range sites {
			put(&f.Paravirt, p.Addr, fmt.Sprintf("pv_ops[%d]", p.Type))
		}
	case ".retpoline_sites":
		return f.addRelative(&f.RetpolineSites, name, "retpoline", data, addr, exec)
	case ".return_sites":
		return f.addRelative(&f.ReturnSites, name, "return", data, addr, exec)
	case ".call_sites":
		return f.addRelative(&f.CallSites, name, "call", data, addr, exec)
	case ".ibt_endbr_seal":
		return f.addRelative(&f.Sealed, name, "endbr64", data, addr, exec)
	}
	return nil
}

func (f *Facts) addRelative(m *map[uint64]string, name, fact string, data []byte, addr uint64, exec Exec) error {
	sites, err := Relative(data, addr, exec)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	for _, site := range sites {
		put(m, site, fact)
	}
	return nil
}

func (f *Facts) addAlternatives(data []byte, addr uint64, exec Exec, resolve Resolver, text Follow) error {
	all, err := Alternatives(data, addr, exec)
	if err != nil {
		return err
	}
	if f.alternatives == nil && len(all) > 0 {
		f.alternatives = make(map[uint64][]Alternative, len(all))
	}
	for _, a := range all {
		fact := a.text(resolve, text)
		if before, ok := f.Alternatives[a.Addr]; ok {
			fact = before + "; " + fact
		}
		put(&f.Alternatives, a.Addr, fact)
		f.alternatives[a.Addr] = append(f.alternatives[a.Addr], a)
	}
	return nil
}

// text is the replacement in GNU syntax and when it is used.
func (a Alternative) text(resolve Resolver, text Follow) string {
	var parts []string
	var code []byte
	if text != nil && a.ReplacementLen > 0 {
		code = text(a.Replacement)
		code = code[:min(len(code), a.ReplacementLen)]
	}
	switch {
	case a.Direct:
		parts = append(parts, "direct call")
	case a.ReplacementLen == 0:
		parts = append(parts, "nop")
	case len(code) == 0:
		parts = append(parts, fmt.Sprintf("%d bytes at %#x", a.ReplacementLen, a.Replacement))
	}
	for inst := range Decode(code, a.Replacement) {
		if a.Direct {
			break
		}
		parts = append(parts, plainSyntax(inst.Text(resolve)))
		if len(parts) == 6 {
			parts = append(parts, "…")
			break
		}
	}
	when := " if "
	if a.Not {
		when = " unless "
	}
	return strings.Join(parts, "; ") + when + a.feature()
}

// brings tells whether an alternative at addr puts a branch where there is no branch.
func (f *Facts) brings(addr uint64) bool {
	fact := f.Alternatives[addr]
	for part := range strings.SplitSeq(fact, "; ") {
		if strings.HasPrefix(part, "call") || strings.HasPrefix(part, "jmp") || strings.HasPrefix(part, "direct call") {
			return true
		}
	}
	return false
}

// length is how many bytes the alternative at addr covers: those of the
// instruction, n, when that is not known.
func (f *Facts) length(addr uint64, n int) uint64 {
	for _, a := range f.alternatives[addr] {
		n = max(n, a.Len)
	}
	return uint64(n)
}

func put(m *map[uint64]string, addr uint64, fact string) {
	if *m == nil {
		*m = make(map[uint64]string)
	}
	(*m)[addr] = fact
}

// plainSyntax drops the size suffixes that x86asm writes where no assembler
// needs them.
func plainSyntax(text string) string {
	for _, op := range []string{"call", "jmp", "ret"} {
		if rest, ok := strings.CutPrefix(text, op+"q"); ok && (rest == "" || rest[0] == ' ') {
			return op + rest
		}
	}
	return text
}

// featureNames are the CPU features by which kernels of Debian replace branches:
// X86_FEATURE_* of cpufeatures.h, those with the same number in every Linux
// from 5.10 (of 2022 and later) to 7.3, or in none but those that have it.
var featureNames = map[uint16]string{
	0*32 + 3:   "PSE",
	0*32 + 4:   "TSC",
	0*32 + 12:  "MTRR",
	0*32 + 13:  "PGE",
	0*32 + 16:  "PAT",
	0*32 + 19:  "CLFLUSH",
	0*32 + 24:  "FXSR",
	0*32 + 25:  "XMM",
	0*32 + 26:  "XMM2",
	0*32 + 27:  "SELFSNOOP",
	1*32 + 20:  "NX",
	1*32 + 26:  "GBPAGES",
	1*32 + 27:  "RDTSCP",
	3*32 + 14:  "SYSCALL32",
	3*32 + 16:  "REP_GOOD",
	3*32 + 20:  "NOPL",
	3*32 + 21:  "ALWAYS",
	3*32 + 22:  "XTOPOLOGY",
	3*32 + 28:  "APERFMPERF",
	4*32 + 3:   "MWAIT",
	4*32 + 5:   "VMX",
	4*32 + 13:  "CX16",
	4*32 + 17:  "PCID",
	4*32 + 21:  "X2APIC",
	4*32 + 22:  "MOVBE",
	4*32 + 23:  "POPCNT",
	4*32 + 26:  "XSAVE",
	4*32 + 27:  "OSXSAVE",
	4*32 + 30:  "RDRAND",
	4*32 + 31:  "HYPERVISOR",
	6*32 + 2:   "SVM",
	6*32 + 22:  "TOPOEXT",
	6*32 + 26:  "BPEXT",
	7*32 + 2:   "CPB",
	7*32 + 8:   "HW_PSTATE",
	7*32 + 11:  "PTI",
	7*32 + 12:  "KERNEL_IBRS",
	7*32 + 13:  "RSB_VMEXIT",
	7*32 + 16:  "MSR_SPEC_CTRL",
	7*32 + 19:  "RSB_CTXSW",
	7*32 + 21:  "USE_IBPB",
	7*32 + 23:  "SPEC_STORE_BYPASS_DISABLE",
	7*32 + 24:  "LS_CFG_SSBD",
	7*32 + 26:  "IBPB",
	7*32 + 28:  "ZEN",
	8*32 + 15:  "VMMCALL",
	8*32 + 16:  "XENPV",
	9*32 + 0:   "FSGSBASE",
	9*32 + 1:   "TSC_ADJUST",
	9*32 + 9:   "ERMS",
	9*32 + 10:  "INVPCID",
	9*32 + 16:  "AVX512F",
	9*32 + 18:  "RDSEED",
	9*32 + 20:  "SMAP",
	10*32 + 0:  "XSAVEOPT",
	10*32 + 1:  "XSAVEC",
	10*32 + 3:  "XSAVES",
	11*32 + 10: "ENTRY_IBPB",
	11*32 + 12: "RETPOLINE",
	11*32 + 13: "RETPOLINE_LFENCE",
	11*32 + 14: "RETHUNK",
	11*32 + 15: "UNRET",
	11*32 + 17: "RSB_VMEXIT_LITE",
	11*32 + 24: "SRSO",
	11*32 + 25: "SRSO_ALIAS",
	11*32 + 26: "IBPB_ON_VMEXIT",
	11*32 + 28: "ZEN2",
	11*32 + 29: "ZEN3",
	11*32 + 30: "ZEN4",
	11*32 + 31: "ZEN1",
	13*32 + 24: "AMD_SSBD",
	13*32 + 25: "VIRT_SSBD",
	14*32 + 1:  "IDA",
	14*32 + 7:  "HWP",
	14*32 + 8:  "HWP_NOTIFY",
	16*32 + 2:  "UMIP",
	16*32 + 3:  "PKU",
	16*32 + 4:  "OSPKE",
	16*32 + 5:  "WAITPKG",
	16*32 + 16: "LA57",
	16*32 + 29: "ENQCMD",
	17*32 + 0:  "OVERFLOW_RECOV",
	17*32 + 1:  "SUCCOR",
	17*32 + 3:  "SMCA",
	18*32 + 4:  "FSRM",
	18*32 + 9:  "SRBDS_CTRL",
	18*32 + 14: "SERIALIZE",
	18*32 + 19: "ARCH_LBR",
	18*32 + 31: "SPEC_CTRL_SSBD",
	19*32 + 10: "SME_COHERENT",
	21*32 + 1:  "CLEAR_BHB_LOOP",
	21*32 + 3:  "CLEAR_BHB_HW",
	21*32 + 4:  "CLEAR_BHB_VMEXIT",
	21*32 + 13: "CLEAR_CPU_BUF_VM",
	21*32 + 14: "IBPB_EXIT_TO_USER",
}

// newFeatureNames are those with the same number from 6.12 to 7.3, X86_BUG_* among them, and those whose number is another
// feature's in stable kernels of the series 6.12, by both names.
var newFeatureNames = map[uint16]string{
	3*32 + 5:   "ZEN5",
	3*32 + 15:  "SYSFAST32 (6.12: SYSENTER32)",
	3*32 + 18:  "CLEAR_CPU_BUF",
	7*32 + 10:  "XCOMPACTED",
	8*32 + 4:   "COHERENCY_SFW_NO",
	8*32 + 20:  "PVUNLOCK",
	8*32 + 21:  "VCPUPREEMPT",
	8*32 + 22:  "TDX_GUEST",
	9*32 + 2:   "SGX",
	10*32 + 4:  "XFD",
	11*32 + 9:  "SGX2",
	11*32 + 18: "SGX_EDECCSSA",
	11*32 + 19: "CALL_DEPTH",
	11*32 + 20: "MSR_TSX_CTRL",
	11*32 + 23: "USER_SHSTK",
	12*32 + 6:  "LASS",
	12*32 + 11: "FSRS",
	12*32 + 17: "FRED",
	12*32 + 18: "LKGS",
	13*32 + 3:  "INVLPGB",
	13*32 + 27: "CPPC",
	14*32 + 15: "HWP_HIGHEST_PERF_CHANGE",
	16*32 + 7:  "SHSTK",
	16*32 + 30: "SGX_LC",
	17*32 + 2:  "CPPC_PERF_PRIO",
	18*32 + 15: "HYBRID_CPU",
	18*32 + 20: "IBT",
	18*32 + 24: "AMX_TILE",
	19*32 + 21: "RMPREAD",
	21*32 + 0:  "AMD_LBR_PMC_FREEZE",
	21*32 + 5:  "AMD_FAST_CPPC",
	21*32 + 6:  "AMD_HTR_CORES (6.12: INDIRECT_THUNK_ITS)",
	21*32 + 7:  "AMD_WORKLOAD_CLASS (6.12: ZEN6)",
	21*32 + 10: "INDIRECT_THUNK_ITS",
	21*32 + 17: "SGX_EUPDATESVN (6.12: TSA_FILL_NO)",
	22*32 + 6:  "BUG_FXSAVE_LEAK",
	22*32 + 7:  "BUG_CLFLUSH_MONITOR",
	22*32 + 8:  "BUG_SYSRET_SS_ATTRS",
	22*32 + 10: "BUG_NULL_SEG",
	22*32 + 12: "BUG_MONITOR",
	23*32 + 4:  "BUG_IBPB_NO_RET",
	23*32 + 12: "BUG_TLBI",
}

// feature is the alternative's feature as cpufeatures.h has it.
func (a Alternative) feature() string {
	if name, ok := featureNames[a.Feature]; ok {
		return name
	}
	if name, ok := newFeatureNames[a.Feature]; ok && !a.old {
		return name
	}
	return fmt.Sprintf("feature %d*32+%d", a.Feature/32, a.Feature%32)
}
