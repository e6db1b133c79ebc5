package report

import (
	"fmt"
	"io"
	"strconv"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// Asm writes the annotated code of a function.
func Asm(w io.Writer, opts Options, name string, lines []branch.Line) error {
	p := newPrinter(opts)
	p.wrap("", name+":")
	for _, l := range lines {
		p.line(fmt.Sprintf("  %x  %s", l.Addr, cells.Clean(l.Text)))
		if l.Note != "" {
			p.wrap("      ; ", l.Note)
		}
	}
	return p.flush(w)
}

// ProfileAsm writes the instructions of a function with the ns per packet that
// samples give each, by address; they are total ns together. Branches that are
// indirect have a mark.
func ProfileAsm(w io.Writer, opts Options, name string, lines []branch.Line, ns map[uint64]float64,
	total float64) error {
	p := newPrinter(opts)
	p.wrap("", fmt.Sprintf("%s: %s ns a packet", name, stat.Number(total)))
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
		text := fmt.Sprintf("%7s %s %x  %s", cell, mark, l.Addr, cells.Clean(l.Text))
		if runes := []rune(text); len(runes) > p.width {
			text = string(runes[:p.width-1]) + "…"
		}
		fmt.Fprintln(&p.buf, p.paint(color, text))
		if l.Note != "" && l.Indirect {
			p.wrap("            ; ", l.Note)
		}
	}
	p.wrap("", "ns a packet by samples; » marks indirect branches. A sample shows on the instruction that was waited "+
		"for, or on one after it.")
	return p.flush(w)
}
