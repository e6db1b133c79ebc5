package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
)

// WriteJSON writes doc as one JSON document, indented by two, as [EscapeJSON] makes it. It takes the memory of the document without
// blanks.
func WriteJSON(w io.Writer, doc any) error {
	return compact(doc, func(b []byte) error {
		out := bufio.NewWriterSize(w, 64<<10)
		l := layout{out: out}
		l.document(b)
		return out.Flush()
	})
}

// compact gives use doc as JSON without blanks, which it must not keep.
func compact(doc any, use func([]byte) error) error {
	enc := json.NewEncoder(compacted(use))
	enc.SetEscapeHTML(false) // "<" would take six bytes; a page escapes what it has
	return enc.Encode(doc)
}

// compacted is what an encoder writes to, once.
type compacted func([]byte) error

func (use compacted) Write(p []byte) (int, error) {
	return len(p), use(bytes.TrimSuffix(p, []byte{'\n'}))
}

// indented is what [WriteJSON] writes of a document without blanks; errSize where that is larger than most bytes. It takes no memory but
// that of what it returns: it is measured first.
func indented(compact []byte, most int) ([]byte, error) {
	measured := layout{out: io.Discard}
	measured.document(compact)
	if measured.size > most {
		return nil, errSize
	}
	b := bytes.NewBuffer(make([]byte, 0, measured.size))
	l := layout{out: b}
	l.document(compact)
	return b.Bytes(), nil
}

// layout lays JSON out. Errors of out are its own to keep.
type layout struct {
	out   io.Writer
	size  int
	depth int
}

const spaces = "                                                                "

func (l *layout) document(b []byte) {
	for at := 0; at < len(b); {
		end := at + 1
		switch b[at] {
		case '{', '[':
			l.put(b[at:end])
			if b[end] == '}' || b[end] == ']' {
				l.put(b[end : end+1])
				end++
				break
			}
			l.depth++
			l.line()
		case '}', ']':
			l.depth--
			l.line()
			l.put(b[at:end])
		case ',':
			l.put(b[at:end])
			l.line()
		case ':':
			l.put([]byte(": "))
		case '"':
			for ; b[end] != '"'; end++ {
				if b[end] == '\\' {
					end++
				}
			}
			end++
			l.put(EscapeJSON(b[at:end]))
		default: // a number, or a word
			for end < len(b) && b[end] != ',' && b[end] != ']' && b[end] != '}' {
				end++
			}
			l.put(b[at:end])
		}
		at = end
	}
	l.put([]byte{'\n'})
}

func (l *layout) put(b []byte) {
	l.size += len(b)
	_, _ = l.out.Write(b)
}

// line begins a line.
func (l *layout) line() {
	l.put([]byte{'\n'})
	for left := 2 * l.depth; left > 0; left -= len(spaces) {
		l.put([]byte(spaces[:min(left, len(spaces))]))
	}
}
