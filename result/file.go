package result

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"unthunk/stat"
)

// Limits on what [Load] accepts.
const (
	// MaxSize of a file in bytes.
	MaxSize = 64 << 20
	// MaxRows of a document.
	MaxRows = 10_000
	// MaxRounds of a row.
	MaxRounds = 100_000
	// maxNs is a packet a second: no chain is slower.
	maxNs = 1e9
)

// NewRunID is a new random run identity: 26 letters and digits.
func NewRunID() string { return rand.Text() }

// CheckWritable fails when [Save] to path would, so that a run does not end
// with nowhere to put its result. It leaves nothing behind.
func CheckWritable(path string) error {
	f, err := temporary(path)
	if err != nil {
		return err
	}
	f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("save %s: %w", path, cause(err))
	}
	return nil
}

// Save writes doc to path as indented JSON. The file appears whole or not at
// all: it is written beside path, flushed to disk and renamed.
func Save(path string, doc any) error {
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	// A link is followed: what it names is replaced, not the link.
	if target, err := filepath.EvalSymlinks(path); err == nil && path != "" {
		path = target
	}
	f, err := temporary(path)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("save %s: %w", path, cause(err))
	}
	// The rename itself is durable once the directory is. Not every file
	// system can say so; the file is there either way.
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		dir.Sync()
		dir.Close()
	}
	return nil
}

// temporary opens a new file in path's directory. A path that exists must be a
// regular file: renaming over /dev/stdout would replace it.
func temporary(path string) (*os.File, error) {
	if path == "" {
		return nil, errors.New("save: no file name")
	}
	switch info, err := os.Stat(path); {
	case err == nil && info.IsDir():
		return nil, fmt.Errorf("save %s: it is a directory", path)
	case err == nil && !info.Mode().IsRegular():
		return nil, fmt.Errorf("save %s: it is not a regular file", path)
	case strings.HasSuffix(path, string(filepath.Separator)):
		return nil, fmt.Errorf("save %s: it is not a file name", path)
	}
	name := filepath.Join(filepath.Dir(path), ".unthunk-"+rand.Text())
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) // less the umask
	if err != nil {
		return nil, fmt.Errorf("save %s: %w", path, cause(err))
	}
	return f, nil
}

// cause strips the operation and the name of the temporary file.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l.Err
	}
	return err
}

// Load reads a record that `unthunk bench --save` or --json wrote. Anything
// else is an error of one line with the file's name: a truncated file, another
// program's JSON, another schema or kind, values no measurement can give.
func Load(path string) (*Document[BenchRow], error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, cause(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, cause(err))
	}
	doc, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return doc, nil
}

func parse(b []byte) (*Document[BenchRow], error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("larger than %d MiB", MaxSize>>20)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, errors.New("the file is empty")
	}
	// What it is comes before what is wrong with it.
	var head struct {
		Schema *string `json:"schema"`
		Kind   string  `json:"kind"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&head); err != nil {
		var wrongType *json.UnmarshalTypeError
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, errors.New("truncated: the JSON ends in the middle")
		case errors.As(err, &wrongType):
			return nil, errors.New("not a record of unthunk")
		}
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more follows after the JSON document")
	}
	switch {
	case head.Schema == nil:
		return nil, errors.New("not a record of unthunk: it has no schema")
	case *head.Schema != Schema:
		return nil, fmt.Errorf("schema %.40q: this unthunk reads %q", *head.Schema, Schema)
	case head.Kind != "bench" && head.Kind != "run":
		return nil, fmt.Errorf("kind %.40q: only a record of bench or run can be compared", head.Kind)
	}
	doc := new(Document[BenchRow])
	if err := json.Unmarshal(b, doc); err != nil {
		return nil, fmt.Errorf("not a record of bench: %w", err)
	}
	if err := check(doc); err != nil {
		return nil, err
	}
	return doc, nil
}

func check(doc *Document[BenchRow]) error {
	if doc.Run == "" {
		return errors.New("the record has no run identity")
	}
	if len(doc.Rows) > MaxRows {
		return fmt.Errorf("%d rows: at most %d are possible", len(doc.Rows), MaxRows)
	}
	seen := make(map[string]bool, len(doc.Rows))
	for i, row := range doc.Rows {
		if row.Name == "" || !plain(row.Name) {
			return fmt.Errorf("row %d: impossible name %.60q", i, row.Name)
		}
		if seen[row.Name] {
			return fmt.Errorf("row %s: occurs twice", row.Name)
		}
		seen[row.Name] = true
		if err := row.check(); err != nil {
			return fmt.Errorf("row %s: %w", row.Name, err)
		}
	}
	return nil
}

func (r *BenchRow) check() error {
	if len(r.Samples) != len(r.Rounds) {
		return fmt.Errorf("%d samples but %d rounds", len(r.Samples), len(r.Rounds))
	}
	if len(r.Rounds) > MaxRounds {
		return fmt.Errorf("%d rounds: at most %d are possible", len(r.Rounds), MaxRounds)
	}
	for i, x := range r.Samples {
		if !(x > 0 && x <= maxNs) {
			return fmt.Errorf("impossible sample of %v ns", x)
		}
		if r.Rounds[i] < 0 || i > 0 && r.Rounds[i] <= r.Rounds[i-1] {
			return fmt.Errorf("round %d is out of order", r.Rounds[i])
		}
	}
	for name, value := range r.Labels {
		if !plain(name) || !plain(value) {
			return fmt.Errorf("impossible label %.60q", name+"="+value)
		}
	}
	measured := r.Ns != nil && r.Mpps != nil
	switch {
	case r.Refused == "" && !measured:
		return errors.New("neither a number nor a reason why not")
	case r.Refused != "" && (r.Ns != nil || r.Mpps != nil):
		return errors.New("a number and a reason why there is none")
	case measured && len(r.Samples) == 0:
		return errors.New("a number without samples")
	}
	for _, q := range []struct {
		name, unit string
		*stat.Quantity
		signed bool
	}{
		{"ns", "ns", r.Ns, false},
		{"mpps", "Mpps", r.Mpps, false},
		{"hop", "ns", r.Hop, true},
		{"observer", "ns", r.Observer, true},
		{"frames-per-xmit", "frames", r.FramesPerXmit, false},
	} {
		if q.Quantity == nil {
			continue
		}
		if q.Unit != q.unit {
			return fmt.Errorf("%s is in %.20q, not in %s", q.name, q.Unit, q.unit)
		}
		for _, x := range []float64{q.Median, q.Low, q.High} {
			if !q.signed && x < 0 || math.Abs(x) > maxNs {
				return fmt.Errorf("%s is impossible: %v %s", q.name, x, q.Unit)
			}
		}
		if q.Low > q.Median || q.Median > q.High || q.N < 0 {
			return fmt.Errorf("%s lies outside its interval", q.name)
		}
	}
	if measured && math.IsNaN(r.Ns.Median) {
		return errors.New("neither a number nor a reason why not")
	}
	return nil
}

// plain reports whether s can be printed on a terminal as it is.
func plain(s string) bool {
	return len(s) <= 300 && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
