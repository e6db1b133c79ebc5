package fleet

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// documents reads the JSON documents of a stream, one after another: a record that is a file, records one a line, or
// indented ones with anything between them, as kubectl logs prints. A document begins at a line that begins with a brace and
// ends with the line that closes it, or before a line that cannot be inside one: what is cut off spoils no other.
type documents struct {
	in *bufio.Reader
	// line is one that was read, and is not of the document before it.
	line []byte
	// foreign is set while lines of no document pass by.
	foreign bool
}

func newDocuments(in io.Reader) *documents { return &documents{in: bufio.NewReaderSize(in, 64<<10)} }

// next is the next document. What is longer than [maxRecord] is cut off behind that. Lines between documents come as one
// document, of their first. At the end it is io.EOF.
func (d *documents) next() ([]byte, error) {
	var doc []byte
	for {
		line, err := d.read()
		if errors.Is(err, io.EOF) && len(doc) > 0 {
			return doc, nil
		}
		if err != nil {
			return nil, err
		}
		switch {
		case len(doc) > 0 && !bytes.ContainsRune(inside, rune(line[0])):
			d.line = line
			return doc, nil
		case line[0] == '{':
			d.foreign = false
			if closes(line) {
				return line, nil
			}
			doc = line
		case len(doc) > 0:
			if len(doc) <= maxRecord {
				doc = append(doc, line[:min(len(line), maxRecord+1-len(doc))]...)
			}
			if line[0] == '}' {
				return doc, nil
			}
		case len(bytes.TrimSpace(line)) > 0 && !d.foreign:
			d.foreign = true
			return line, nil
		}
	}
}

// inside is how a line within a document may begin.
var inside = []byte(" \t\r\n\"[],}")

// closes tells whether a line is a whole document.
func closes(line []byte) bool {
	line = bytes.TrimRight(line, " \t\r\n")
	return len(line) > 1 && line[len(line)-1] == '}'
}

// read is the next line with its end; of a longer one than [maxRecord] what is up to there. It has at least one byte.
func (d *documents) read() ([]byte, error) {
	if d.line != nil {
		line := d.line
		d.line = nil
		return line, nil
	}
	var line []byte
	for {
		part, err := d.in.ReadSlice('\n')
		if room := maxRecord + 1 - len(line); room > 0 {
			line = append(line, part[:min(len(part), room)]...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0, err == nil:
			return line, nil
		default:
			return nil, err
		}
	}
}
