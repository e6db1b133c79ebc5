package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"unicode/utf8"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Limits on the types of a program, in a file or in the kernel, which has those alone that it uses: large ones have some
// thousand. The kernel takes a million types of 16 MiB. Decoded, members take 25 times their size, each type and member a copy of
// its name, and types that lead to others 2 KB of stack each: the runtime ends the process at 1 GB.
const (
	maxProgramBTF   = 4 << 20 // bytes
	maxProgramTypes = 1 << 16
	maxProgramNames = 16 << 20 // bytes
)

// CheckProgramTypes refuses types (BTF) of a program that do not hold together, and those that would take much more memory
// than they have bytes.
func CheckProgramTypes(raw []byte) error {
	graph, err := readTypes(raw, typeLimits{maxProgramBTF, maxProgramTypes, maxProgramNames})
	if err != nil {
		return err
	}
	return checkDepth(graph.reach()) // the library decodes them in an order of its own
}

// readProgramTypes are the types of a loaded program or map, checked by [CheckProgramTypes]: who loads one may be hostile.
// Requires CAP_SYS_ADMIN.
func readProgramTypes(id btf.ID) ([]byte, error) {
	h, err := btf.NewHandleFromID(id)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	raw, err := rawTypes(h, maxProgramBTF)
	if err != nil {
		return nil, err
	}
	return raw, CheckProgramTypes(raw)
}

// ProgramTypes are the types of a loaded program or map, by their number. What would take much more memory than it has bytes is
// refused. Requires CAP_SYS_ADMIN.
func ProgramTypes(id btf.ID) (*btf.Spec, error) {
	raw, err := readProgramTypes(id)
	if err != nil {
		return nil, fmt.Errorf("types %d: %w", id, err)
	}
	return btf.LoadSpecFromReader(bytes.NewReader(raw))
}

// checkTypesOf checks the types of a loaded program before package ebpf decodes them; one without any is fine.
func checkTypesOf(info *ebpf.ProgramInfo) error {
	id, ok := info.BTFID()
	if !ok {
		return nil
	}
	if _, err := readProgramTypes(id); err != nil {
		return fmt.Errorf("types of program %s: %w", info.Name, err)
	}
	return nil
}

// FuncInfos are the functions of a loaded program, which must be open. Types that [ProgramTypes] refuses are an error.
// Requires CAP_SYS_ADMIN.
func FuncInfos(info *ebpf.ProgramInfo) (btf.FuncOffsets, error) {
	if err := checkTypesOf(info); err != nil {
		return nil, err
	}
	return info.FuncInfos()
}

// Line is a place in the source of a program. Number 0 is the compiler's own.
type Line struct {
	File           string // at most 4096 bytes
	Text           string // the beginning of the line, at most 1200 bytes
	Number, Column int
}

// LineOffset is where the instructions of a line begin: in BPF instructions from the start of the program.
type LineOffset struct {
	Offset asm.RawInstructionOffset
	Line
}

// LineOf is a line that package btf has read, cut: one text of megabytes may be that of each instruction. It copies nothing.
func LineOf(l *btf.Line) Line {
	const maxPath, maxText = unix.PathMax, 1200
	return Line{beginning(l.FileName(), maxPath), beginning(l.Line(), maxText), int(l.LineNumber()), int(l.LineColumn())}
}

// beginning is the first bytes of s, without a part of a character at their end.
func beginning(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// Lines are the lines of the source of a loaded program, which must be open, in the order of its instructions. Types that
// [ProgramTypes] refuses are an error. Requires CAP_SYS_ADMIN.
func Lines(info *ebpf.ProgramInfo) ([]LineOffset, error) {
	if err := checkTypesOf(info); err != nil {
		return nil, err
	}
	read, err := info.LineInfos()
	if err != nil {
		return nil, err
	}
	lines := make([]LineOffset, len(read))
	for i, l := range read {
		lines[i] = LineOffset{l.Offset, LineOf(l.Line)}
	}
	return lines, nil
}

// Instructions are the BPF instructions that the verifier left of a loaded program, which must be open, with functions and lines
// where the process has CAP_SYS_ADMIN. Types that [ProgramTypes] refuses are an error.
func Instructions(info *ebpf.ProgramInfo) (asm.Instructions, error) {
	if err := checkTypesOf(info); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	return info.Instructions()
}
