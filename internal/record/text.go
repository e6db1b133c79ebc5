package record

import (
	"strings"
	"unicode"
)

// Text is a text that others wrote, as a record may have it: without blanks at both ends, instead for each character that a
// terminal does not show as it is, and no more than most characters, the last of which is an ellipsis where more was left out. Of a
// long text the beginning alone is read.
func Text(s string, most int, instead rune) string {
	var b strings.Builder
	s = strings.TrimLeftFunc(s, unicode.IsSpace)
	count, cut := 0, 0 // cut is where the ellipsis stands, in bytes
	for _, r := range s {
		if count == most {
			return strings.TrimSpace(b.String()[:cut]) + "…"
		}
		if count == most-1 {
			cut = b.Len()
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = instead
		}
		b.WriteRune(r)
		count++
	}
	return strings.TrimSpace(b.String())
}
