package report

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/unthunk/unthunk/internal/record"
)

// JSON writes doc as one indented JSON document.
func JSON(w io.Writer, doc any) error {
	if err := record.WriteJSON(w, doc); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// JSONLine writes doc as JSON in one line.
func JSONLine(w io.Writer, doc any) error {
	enc := json.NewEncoder(escaper{w})
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// escaper writes JSON as [record.EscapeJSON] makes it, a document at a time and each by one Write: what is behind it may be shared.
type escaper struct{ io.Writer }

func (e escaper) Write(p []byte) (int, error) {
	if _, err := e.Writer.Write(record.EscapeJSON(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}
