package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// Asm writes the annotated code of a function: each instruction with its offset, which
// is what jumps within the function name.
func Asm(w io.Writer, opts Options, c *record.Code) error {
	p := newPrinter(opts)
	p.wrap("", fmt.Sprintf("%s at %x:", c.Function, c.Address))
	for _, l := range c.Lines {
		p.line(fmt.Sprintf("  %6s  %s", fmt.Sprintf("+%#x", l.Offset), instruction(l.Text)))
		if l.Note != "" {
			p.wrap("      ; ", l.Note)
		}
	}
	return p.flush(w)
}

// offset is where an instruction stands in its function.
func offset(lines []branch.Line, l branch.Line) string {
	return fmt.Sprintf("+%#x", l.Addr-lines[0].Addr)
}

// instruction is the text of one. A jump within the function has the offset of its
// target alone: its address, which stands before that, is another one after each boot.
func instruction(text string) string {
	text = cells.Clean(text)
	before, target, ok := strings.Cut(text, " <+")
	at := strings.LastIndexByte(before, ' ')
	if !ok || at < 0 {
		return text
	}
	return before[:at] + " +" + strings.TrimSuffix(target, ">")
}

// ProfileAsm writes the instructions of a function with the ns per packet that
// samples give each, by address; they are total ns together. Branches that are
// indirect have a mark.
func ProfileAsm(w io.Writer, opts Options, name string, lines []branch.Line, ns map[uint64]float64,
	total float64) error {
	p := newPrinter(opts)
	p.wrap("", fmt.Sprintf("%s: %s ns a packet by samples.", name, stat.Number(total)))
	p.wrap("", "» marks indirect branches. A sample shows on the instruction that was waited for, or on one after it.")
	hottest := 0.0
	for _, x := range ns {
		hottest = max(hottest, x)
	}
	for _, l := range lines {
		cell, color := "", ""
		if x, ok := ns[l.Addr]; ok {
			cell = strconv.FormatFloat(x, 'f', 2, 64)
			if x >= hottest/2 {
				color = bold
			}
		}
		mark := " "
		if l.Indirect {
			mark = "»"
		}
		text := fmt.Sprintf("%7s %s %6s  %s", cell, mark, offset(lines, l), instruction(l.Text))
		if runes := []rune(text); len(runes) > p.width {
			text = string(runes[:p.width-1]) + "…"
		}
		fmt.Fprintln(&p.buf, p.paint(color, text))
		if l.Note != "" && l.Indirect {
			p.wrap("            ; ", l.Note)
		}
	}
	return p.flush(w)
}
