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

// escaper writes JSON, a document at a time. Of what a terminal does not print, as U+202E that turns a line round, json.Encoder
// escapes ASCII alone: the others become \u202e, too.
type escaper struct{ io.Writer }

func (e escaper) Write(p []byte) (int, error) {
	hidden := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	for rest := p; len(rest) > 0; {
		at := bytes.IndexFunc(rest, hidden)
		if at < 0 {
			at = len(rest)
		}
		if _, err := e.Writer.Write(rest[:at]); err != nil {
			return 0, err
		}
		if rest = rest[at:]; len(rest) == 0 {
			break
		}
		r, size := utf8.DecodeRune(rest)
		for _, unit := range utf16.Encode([]rune{r}) {
			if _, err := fmt.Fprintf(e.Writer, `\u%04x`, unit); err != nil {
				return 0, err
			}
		}
		rest = rest[size:]
	}
	return len(p), nil
}
