package host

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/midr"
	"github.com/unthunk/unthunk/internal/perf"
)

// entry is what a CPU of arm64 executes against predictions of user space when it leaves that: in the exception vectors that
// arch/arm64/kernel/proton-pack.c chose, and in a function that goes to firmware.
type entry struct {
	// loop is how many branches a loop makes over the branch history, 0 for no loop.
	loop     int
	clearbhb bool
	// firmware is the instruction that calls it, "smc" or "hvc".
	firmware string
	// kpti is set where the vectors switch page tables too.
	kpti bool
	// instructions are those in front of the kernel's own vectors.
	instructions int
	// exit are those of KPTI where user space is entered again, 0 where they are not known.
	exit int
	// function is called besides (Spectre v2, SMCCC_ARCH_WORKAROUND_1), empty for none.
	function string
}

// Instructions of the vectors (tramp_ventry in arch/arm64/kernel/entry.S, __mitigate_spectre_bhb_loop in assembler.h; Linux 5.17 to 7.3).
const (
	wordRet      = 0xd65f03c0
	wordBr       = 0xd61f0000 // of x0
	wordClearBHB = 0xd50322df
	wordSMC      = 0xd4000003
	wordHVC      = 0xd4000002
	wordBLNext   = 0x94000002 // bl 2f; b .; 2: of KPTI
	wordBNext    = 0x14000001 // b . + 4
	wordToFAR    = 0xd518601d // msr far_el1, x29, or x30 before Linux 6.1
	wordERET     = 0xd69f03e0
	wordBackTwo  = 0x54ffffc1 // b.ne to two instructions before
)

// A vector table has an entry each 128 bytes; that of a synchronous exception from 64-bit user space is at fromUser (Arm Architecture
// Reference Manual, D1.3.1).
const (
	fromUser   = 0x400
	entryBytes = 0x80
)

// readEntry reads the code of an entry: straight, but for the loop. It returns false for code that is none of the kernel's trampolines.
func readEntry(code []byte) (e entry, ok bool) {
	words := wordsOf(code)
	for i, w := range words {
		switch {
		case w == wordRet:
			e.instructions = i + 1 + 3*max(0, e.loop-1)
			if e.kpti {
				e.instructions-- // the bl steps over one
			}
			return e, true
		case w == wordClearBHB:
			e.clearbhb = true
		case w == wordSMC:
			e.firmware = "smc"
		case w == wordHVC:
			e.firmware = "hvc"
		case w == wordBLNext:
			e.kpti = true
		case w == wordBackTwo && i >= 3 && words[i-2] == wordBNext && words[i-3]&0xffe00000 == 0xd2800000: // mov; b; subs; b.ne
			e.loop = int(words[i-3] >> 5 & 0xffff)
		}
	}
	return entry{}, false
}

// wordsOf are the instructions of code.
func wordsOf(code []byte) (words []uint32) {
	for ; len(code) >= 4; code = code[4:] {
		words = append(words, binary.LittleEndian.Uint32(code))
	}
	return words
}

// readExit counts what KPTI executes where user space is entered again: in ret_to_user from where a register is put aside to
// the jump to the trampoline (kernel_exit in arch/arm64/kernel/entry.S), and the trampoline's own code. Both are straight.
func readExit(toUser, trampoline []byte) (n int, ok bool) {
	words := wordsOf(toUser)
	from := slices.IndexFunc(words, func(w uint32) bool { return w&^3 == wordToFAR&^3 })
	if from < 0 {
		return 0, false
	}
	jump := slices.IndexFunc(words[from:], func(w uint32) bool { return w&^0x3e0 == wordBr })
	end := slices.Index(wordsOf(trampoline), wordERET)
	return jump + 1 + end + 1, jump >= 0 && end >= 0
}

// String is what is executed, in words.
func (e entry) String() string {
	var parts []string
	if e.loop > 0 {
		parts = append(parts, fmt.Sprintf("a loop of %d branches", e.loop))
	}
	if e.clearbhb {
		parts = append(parts, "clearbhb")
	}
	if e.firmware != "" {
		parts = append(parts, "firmware by "+e.firmware+" (SMCCC_ARCH_WORKAROUND_3)")
	}
	if e.function != "" {
		parts = append(parts, e.function)
	}
	if e.kpti {
		parts = append(parts, "a switch of page tables (KPTI)")
	}
	if len(parts) == 0 {
		return "nothing against predictions"
	}
	text := strings.Join(parts, ", ")
	if e.instructions > 0 {
		text += fmt.Sprintf(": %d instructions before the kernel's own vectors", e.instructions)
	}
	if e.exit > 0 {
		text += fmt.Sprintf(", %d where user space is entered again, an indirect branch among them", e.exit)
	}
	return text
}

// exitOf is [readExit] of a kernel, 0 where that cannot be read.
func exitOf(k *kernel.Kernel) int {
	var codes [2][]byte
	for i, names := range [][]string{{"ret_to_user"}, {"tramp_exit", "tramp_exit_native"}} {
		for _, name := range names {
			if s, ok := k.Symbols.Lookup(name); ok && codes[i] == nil {
				codes[i], _ = k.Code(s)
			}
		}
	}
	n, ok := readExit(codes[0], codes[1])
	if !ok {
		return 0
	}
	return n
}

// readEntries reads what each CPU executes, as texts: one where all do the same.
func readEntries(k *kernel.Kernel, cpus []int) (texts []string, err error) {
	offsets, hasOffsets := k.Symbols.Lookup("__per_cpu_offset")
	vector, hasVector := k.Symbols.Lookup("this_cpu_vector")
	own, hasOwn := k.Symbols.Lookup("vectors")
	if !hasOffsets || !hasVector || !hasOwn {
		return nil, errors.New("this kernel has no symbol this_cpu_vector: it is older than 5.17, or has no CONFIG_KALLSYMS_ALL")
	}
	pointer := func(addr uint64) (uint64, error) {
		b, err := k.Read(addr, 8)
		if err != nil {
			return 0, err
		}
		return binary.LittleEndian.Uint64(b), nil
	}
	for _, cpu := range cpus {
		offset, err := pointer(offsets.Addr + 8*uint64(cpu))
		if err != nil {
			return nil, err
		}
		table, err := pointer(vector.Addr + offset)
		if err != nil {
			return nil, err
		}
		var e entry
		if table != own.Addr {
			code, err := k.Read(table+fromUser, entryBytes)
			if err != nil {
				return nil, fmt.Errorf("read vectors of CPU %d: %w", cpu, err)
			}
			known := false
			if e, known = readEntry(code); !known {
				return nil, fmt.Errorf("the code of CPU %d's vectors at %#x is not known", cpu, table)
			}
			if e.kpti {
				e.exit = exitOf(k)
			}
		}
		if data, ok := k.Symbols.Lookup("bp_hardening_data"); ok {
			called, err := pointer(data.Addr + offset + 8) // struct bp_hardening_data: slot, fn
			if err != nil {
				return nil, err
			}
			if called != 0 {
				name, _ := k.Symbols.Starts(called)
				e.function = cmp.Or(name, "a function that has no name")
			}
		}
		if text := e.String(); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return texts, nil
}

// entryRow is the finding of what arm64 executes when user space is left.
func (m *machine) entryRow(b branches) Finding {
	row := Finding{Name: "entry-from-user", Level: LevelOK,
		Means: "a redirected packet does not come that way; each system call does, AF_XDP's sendto among them"}
	if err := cmp.Or(b.err, b.entriesErr); err != nil {
		row = unseenf(row.Name, "what the exception vectors do cannot be read: %v", err)
		if id, ok := midr.Parse(m.get("proc/cpuinfo")); ok && strings.Contains(m.get(vulnerabilitiesDir+"/spectre_v2"), "BHB") {
			if n := id.HistoryLoop(); n > 0 {
				row.Means = fmt.Sprintf("Linux 7.3 chooses a loop of %d branches for this CPU where it has no clearbhb", n)
			}
		}
		return row
	}
	row.Found = strings.Join(b.entries, "; on other CPUs ")
	return row
}

// onlineCPUs are those of the machine, the first where that is not said.
func (m *machine) onlineCPUs() []int {
	cpus, err := perf.ParseCPUs(m.get("sys/devices/system/cpu/online"))
	if err != nil {
		return []int{0}
	}
	return cpus
}
