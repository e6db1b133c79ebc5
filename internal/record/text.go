package record

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode"
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
