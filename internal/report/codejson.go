package report

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// listingsKey is how JSON begins the last field of a [record.ProgCode] without listings.
const listingsKey = `"listings": `

// ProgCodeJSON writes what [JSON] writes of doc with these lines, an instruction at a time: a program of a million takes
// hundreds of MB as one text. It ends with ctx's error once ctx is done.
func ProgCodeJSON(ctx context.Context, w io.Writer, doc *record.ProgCode, lines ListingLines) error {
	out := bufio.NewWriterSize(w, 64<<10)
	p := &pieces{ctx: ctx, w: out}
	head := *doc
	head.Listings = nil
	text := p.encode("", &head)
	end := bytes.LastIndex(text, []byte(listingsKey))
	if len(doc.Listings) == 0 || end < 0 {
		return JSON(w, doc)
	}
	p.text(string(text[:end]) + listingsKey + "[")
	for i := range doc.Listings {
		p.listing(i, &doc.Listings[i], lines(i))
	}
	p.text("\n  ]\n}\n")
	if p.err != nil {
		return p.err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// pieces writes JSON piece by piece, until the first error.
type pieces struct {
	ctx context.Context
	w   io.Writer
	buf bytes.Buffer
	err error
}

func (p *pieces) listing(i int, l *record.ProgListing, lines iter.Seq[record.ProgListingLine]) {
	p.next(i, "    ")
	head := *l
	head.Lines = []record.ProgListingLine{}
	const none = "]\n    }"
	p.text(strings.TrimSuffix(string(p.encode("    ", &head)), none))
	n := 0
	for line := range lines {
		p.next(n, "        ")
		p.text(string(p.encode("        ", &line)))
		if n++; p.err != nil {
			return
		}
	}
	if n > 0 {
		p.text("\n      ")
	}
	p.text(none)
}

// next begins the element i of a list.
func (p *pieces) next(i int, indent string) {
	if i > 0 {
		p.text(",")
	}
	p.text("\n" + indent)
}

// encode makes the indented text of a value; lines but the first begin with prefix. It holds until the next call.
func (p *pieces) encode(prefix string, v any) []byte {
	p.buf.Reset()
	enc := json.NewEncoder(escaper{&p.buf})
	enc.SetEscapeHTML(false)
	enc.SetIndent(prefix, "  ")
	if err := enc.Encode(v); err != nil && p.err == nil {
		p.err = fmt.Errorf("write JSON: %w", err)
	}
	return bytes.TrimSuffix(p.buf.Bytes(), []byte("\n"))
}

func (p *pieces) text(s string) {
	if p.err == nil {
		p.err = p.ctx.Err()
	}
	if p.err != nil {
		return
	}
	if _, err := io.WriteString(p.w, s); err != nil {
		p.err = fmt.Errorf("write JSON: %w", err)
	}
}
