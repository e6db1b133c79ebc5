package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON writes doc as one indented JSON document.
func JSON(w io.Writer, doc any) error { return writeJSON(w, doc, "  ") }

// JSONLine writes doc as JSON in one line.
func JSONLine(w io.Writer, doc any) error { return writeJSON(w, doc, "") }

func writeJSON(w io.Writer, doc any, indent string) error {
	enc := json.NewEncoder(escaper{w})
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// escaper writes JSON, a document at a time and each by one Write: what is behind it may be shared. Of what a terminal does not
// print, as U+202E that turns a line round, json.Encoder escapes ASCII alone: the others become \u202e, too.
type escaper struct{ io.Writer }

func (e escaper) Write(p []byte) (int, error) {
	hidden := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	var escaped []byte
	rest := p
	for at := bytes.IndexFunc(rest, hidden); at >= 0; at = bytes.IndexFunc(rest, hidden) {
		r, size := utf8.DecodeRune(rest[at:])
		escaped = append(escaped, rest[:at]...)
		for _, unit := range utf16.Encode([]rune{r}) {
			escaped = fmt.Appendf(escaped, `\u%04x`, unit)
		}
		rest = rest[at+size:]
	}
	if escaped != nil {
		rest = append(escaped, rest...)
	}
	if _, err := e.Writer.Write(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}
