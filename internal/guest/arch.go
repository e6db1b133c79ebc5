package guest

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/unpack"
)

// architecture is what differs between guests.
type architecture struct {
	// qemu emulates it, and is in the Debian package pkg.
	qemu, pkg string
	machine   elf.Machine
	// board are the options of -machine.
	board string
	// console and results are the serial ports.
	console, results string
	// exact is added to the kernel's command line, and counter to QEMU's -cpu, where the clock counts instructions.
	exact, counter string
	// signing is added to the model max where it is emulated.
	signing string
	// timed is added to the kernel's command line where the clock is this machine's.
	timed string
}

// AMD64 and ARM64 are the architectures of guests, as Go and Debian call them.
const (
	AMD64 = "amd64"
	ARM64 = "arm64"
)

var architectures = map[string]architecture{
	AMD64: {
		qemu: "qemu-system-x86_64", pkg: "qemu-system-x86", machine: elf.EM_X86_64,
		// Without the disks, the bus and the mouse that this machine has by itself.
		board:   "q35,usb=off,sata=off,smbus=off,vmport=off",
		console: "ttyS0", results: "ttyS1",
		// Linux must not refine the rate of the time stamp counter, which it would by a timer and to 1 ppm: its clock then
		// counts instructions without rounding. To find the rate of the APIC's timer it waits for 0.2 s in loops of pause,
		// which take QEMU 9.5 s: 13 s of a core to boot Debian's 6.12 were 2.5 s without. Ticks come from the PIT then.
		exact: " tsc_early_khz=1000000 hpet=disable pmtmr=0 nolapic_timer no_timer_check",
		// Linux waits for ten ticks of the PIT by the time stamp counter, and panics when a busy machine has no time for QEMU's
		// timers meanwhile.
		timed: " no_timer_check",
	},
	ARM64: {
		qemu: "qemu-system-aarch64", pkg: "qemu-system-arm", machine: elf.EM_AARCH64,
		board:   "virt,gic-version=3",
		console: "ttyAMA0", results: "ttyS0", // on PCI: the second PL011 is of QEMU 9.1
		// The kernel takes the rate of the generic timer as QEMU says it.
		counter: ",cntfrq=1000000000",
		// The kernel signs its return addresses. With the cipher that the architecture names, which is what QEMU takes before
		// 10.0, a guest took 29 s of a core that took 8 with QEMU's own hash; it executes the same instructions.
		signing: ",pauth-impdef=on",
	},
}

// Arches are the architectures of guests.
func Arches() []string { return []string{AMD64, ARM64} }

// CheckArch returns an error when name is none of [Arches].
func CheckArch(name string) error {
	if !slices.Contains(Arches(), name) {
		return fmt.Errorf("architecture %q is not %s", name, strings.Join(Arches(), " or "))
	}
	return nil
}

// ArchName is the name of a kernel for guests of an architecture: of Debian's those of another architecture
// than this machine's end in that, debian:6.12-cloud-arm64.
func ArchName(kernel, arch string) string {
	version, ok := strings.CutPrefix(kernel, debianPrefix)
	wanted := version
	if rest, all := strings.CutPrefix(version, everySeries); all {
		wanted = anySeries + rest
	}
	if w, err := parseWant(wanted); !ok || arch == "" || err != nil || w.explicit || w.arch == arch {
		return kernel
	}
	return kernel + "-" + arch
}

// CheckProgram returns an error when a program cannot run in guests of an architecture. One of another architecture than this
// program's has to be static: its libraries are not here, and files that a foreign program names are not read.
func CheckProgram(path, arch string) error {
	f, _, err := unpack.Open(path, maxInitrd)
	if err != nil {
		return fmt.Errorf("read program %s: %w", path, err)
	}
	defer f.Close()
	e, err := parseProgram(f)
	if err != nil {
		return fmt.Errorf("read program %s: %w", path, err)
	}
	if want := architectures[arch].machine; e.Machine != want {
		return fmt.Errorf("program %s is of %v: guests of %s need one of %v", path, e.Machine, arch, want)
	}
	dynamic := func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }
	if arch != runtime.GOARCH && slices.ContainsFunc(e.Progs, dynamic) {
		return fmt.Errorf("program %s is not static: guests of %s need one that is built with CGO_ENABLED=0", path, arch)
	}
	return nil
}

// parseProgram reads the headers of an ELF file of 64 bits and of its segments. The sections are left out: the names of a small
// file's may unpack to any size.
func parseProgram(f io.ReaderAt) (*elf.File, error) {
	const header, shoff, shnum = 64, 0x28, 0x3c // of Elf64_Ehdr: e_shoff has 8 bytes, e_shnum and e_shstrndx after it 2 each
	b := make([]byte, header)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, errors.New("it is no program")
	}
	if elf.Class(b[elf.EI_CLASS]) != elf.ELFCLASS64 {
		return nil, errors.New("it is no program of 64 bits")
	}
	clear(b[shoff:][:8])
	clear(b[shnum:])
	return elf.NewFile(headed{b, f})
}

// headed is a file whose beginning is another's.
type headed struct {
	head []byte
	io.ReaderAt
}

// ReadAt is that of [io.ReaderAt].
func (h headed) ReadAt(b []byte, at int64) (n int, err error) {
	if at >= 0 && at < int64(len(h.head)) {
		n = copy(b, h.head[at:])
	}
	if n == len(b) {
		return n, nil
	}
	m, err := h.ReaderAt.ReadAt(b[n:], at+int64(n))
	return n + m, err
}

// hostArch is this program's architecture when guests may be of it, else that of most kernels.
func hostArch() string {
	if slices.Contains(Arches(), runtime.GOARCH) {
		return runtime.GOARCH
	}
	return AMD64
}
