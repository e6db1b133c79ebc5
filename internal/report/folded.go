package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/unthunk/unthunk/internal/record"
)

// Folded writes the call chains of a profile as folded stacks, a line each: frames
// from the outermost on, parted by semicolons, a space, the number of samples. It is
// the format of stackcollapse-perf.pl and what reads that.
func Folded(w io.Writer, prof *record.Profile) error {
	b := bufio.NewWriter(w)
	for _, s := range prof.Stacks {
		for i, frame := range s.Frames {
			if i > 0 {
				b.WriteByte(';')
			}
			b.WriteString(foldable(frame))
		}
		fmt.Fprintf(b, " %d\n", s.Samples)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write folded stacks: %w", err)
	}
	return nil
}

// foldable is a name without what the format gives a meaning.
func foldable(name string) string {
	return strings.Map(func(r rune) rune {
		if r == ';' || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
}
