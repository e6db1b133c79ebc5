package record

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxPart is how much of a name that others gave is a part of a record's name, in bytes: there is room for four.
const maxPart = MaxName / 5

// Name is a name that others gave, of a device or a file, as a name or a label of a record may have it: as it is where a terminal
// shows that and it has at most 200 bytes, else what [Text] leaves of it and a hash of the whole, so that two names stay two.
func Name(s string) string {
	if len(s) <= maxPart && utf8.ValidString(s) && printable(s) {
		return s
	}
	text, hash := Text(s, maxPart, '?'), fmt.Sprintf("#%x", sha256.Sum256([]byte(s)))[:9]
	if most := maxPart - len(hash); len(text) > most {
		text = strings.ToValidUTF8(text[:most-len("…")], "") + "…" // without a part of a character
	}
	return text + hash
}

// Sentence is a text that others wrote, or that has one of theirs, as long as a record's sentences may be.
func Sentence(s string) string { return Text(s, MaxText, '?') }

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

// EscapeJSON is JSON that a terminal shows as it is. Of what none does, as U+202E that turns a line round, package json escapes ASCII
// alone: the others become \u202e, too. It is b itself where nothing is to be escaped.
func EscapeJSON(b []byte) []byte {
	hidden := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	var escaped []byte
	rest := b
	for at := bytes.IndexFunc(rest, hidden); at >= 0; at = bytes.IndexFunc(rest, hidden) {
		r, size := utf8.DecodeRune(rest[at:])
		escaped = append(escaped, rest[:at]...)
		for _, unit := range utf16.Encode([]rune{r}) {
			escaped = fmt.Appendf(escaped, `\u%04x`, unit)
		}
		rest = rest[at+size:]
	}
	if escaped == nil {
		return b
	}
	return append(escaped, rest...)
}
