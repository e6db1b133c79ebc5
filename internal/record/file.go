package record

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
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/stat"
)

// Limits on what [Load] accepts.
const (
	// MaxSize of a file in bytes.
	MaxSize = 64 << 20
	// MaxRows of a document.
	MaxRows = 10_000
	// MaxRounds of a row.
	MaxRounds = 100_000
	// maxObjects of a document: rows, functions, stacks and all else in its lists.
	maxObjects = 500_000
	// maxValues of a document: fields of objects, numbers, names.
	maxValues = 5_000_000
	// maxNs is a packet a second: no chain is slower.
	maxNs = 1e9
	// maxText is the length of a row's sentences in characters.
	maxText = 1000
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

// Save writes doc to path as indented JSON, by [WriteFile].
func Save(path string, doc any) error {
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return WriteFile(path, append(b, '\n'))
}

// WriteFile writes b to path. The file appears whole or not at all: it is written
// beside path, flushed to disk and renamed.
func WriteFile(path string, b []byte) error {
	// A link is followed: what it names is replaced, not the link.
	if target, err := filepath.EvalSymlinks(path); err == nil && path != "" {
		path = target
	}
	f, err := temporary(path)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
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

// Load reads a record that bench, run or tax wrote with --save or --json.
// Anything else is an error of one line with the file's name: a truncated file,
// another program's JSON, another schema or kind, values no measurement can
// give.
func Load(path string) (*Record, error) {
	return load(path, parse)
}

// KindOf is the kind of a record, whichever verb made it. What is no record of
// unthunk is an error of one line with the file's name.
func KindOf(path string) (string, error) {
	kind, err := load(path, func(b []byte) (*string, error) {
		kind, err := parseHead(b)
		return &kind, err
	})
	if err != nil {
		return "", err
	}
	return *kind, nil
}

// load reads a file of limited size and parses it.
func load[T any](path string, parse func([]byte) (*T, error)) (*T, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, cause(err))
	}
	if !info.Mode().IsRegular() && !info.IsDir() { // a pipe would wait, and cannot be read twice
		return nil, fmt.Errorf("load %s: it is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, cause(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, cause(err))
	}
	parsed, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return parsed, nil
}

func parse(b []byte) (*Record, error) {
	kind, err := parseHead(b)
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"bench", "run", "tax"}, kind) {
		return nil, fmt.Errorf("kind %.40q: only a record of bench, run or tax, or two of xray or of profile, can be compared", kind)
	}
	if kind == "tax" {
		return asRecord(parseRows[TaxRow](b, kind))
	}
	return asRecord(parseRows[BenchRow](b, kind))
}

func asRecord[Row BenchRow | TaxRow](doc *Document[Row], err error) (*Record, error) {
	if err != nil {
		return nil, err
	}
	return NewRecord(doc), nil
}

// parseHead is the document's kind. What it is comes before what is wrong with
// it.
func parseHead(b []byte) (kind string, err error) {
	if len(b) > MaxSize {
		return "", fmt.Errorf("larger than %d MiB", MaxSize>>20)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return "", errors.New("the file is empty")
	}
	var head struct {
		Schema *string `json:"schema"`
		Kind   string  `json:"kind"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&head); err != nil {
		var wrongType *json.UnmarshalTypeError
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return "", errors.New("truncated: the JSON ends in the middle")
		case errors.As(err, &wrongType):
			return "", errors.New("not a record of unthunk")
		}
		return "", fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return "", errors.New("more follows after the JSON document")
	}
	switch {
	case head.Schema == nil:
		return "", errors.New("not a record of unthunk: it has no schema")
	case *head.Schema != Schema:
		return "", fmt.Errorf("schema %.40q: this unthunk reads %q", *head.Schema, Schema)
	}
	count := counter{dec: json.NewDecoder(bytes.NewReader(b))}
	count.dec.UseNumber()
	if err := count.value(false); err != nil {
		return "", err
	}
	return head.Kind, nil
}

// counter counts what a document holds before it is made: an element of a list of
// rows takes two bytes in the file and hundreds in memory, even one of another type,
// which json.Unmarshal passes over.
type counter struct {
	dec             *json.Decoder
	objects, values int
}

// value counts one value and all in it. Elements of a list count as objects, but for
// those of a plain list, which has numbers or texts.
func (c *counter) value(plain bool) error {
	token, err := c.dec.Token()
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	open, _ := token.(json.Delim)
	for open != 0 && c.dec.More() {
		inner := false // a plain list
		if open == '{' {
			key, err := c.dec.Token()
			if err != nil {
				return fmt.Errorf("not JSON: %w", err)
			}
			switch key {
			case "samples", "rounds", "cpus", "targets", "via", "frames":
				inner = true
			}
		}
		if open == '{' || plain {
			c.values++
		} else {
			c.objects++
		}
		switch {
		case c.objects > maxObjects:
			return fmt.Errorf("more than %d JSON objects", maxObjects)
		case c.values > maxValues:
			return fmt.Errorf("more than %d JSON values", maxValues)
		}
		if err := c.value(inner); err != nil {
			return err
		}
	}
	if open != 0 {
		_, err = c.dec.Token() // its end
	}
	return err
}

// parseRows reads and checks a document of bench, run or tax.
func parseRows[Row BenchRow | TaxRow](b []byte, kind string) (*Document[Row], error) {
	doc := new(Document[Row])
	if err := json.Unmarshal(b, doc); err != nil {
		return nil, fmt.Errorf("not a record of %s: %w", kind, err)
	}
	if kind != "run" && len(doc.Prices)+len(doc.Stages) > 0 {
		return nil, fmt.Errorf("not a record of %s: it has prices or stages beside its rows", kind)
	}
	if doc.Profile != nil {
		p := Profile{ProfileParts: *doc.Profile}
		p.Rows = doc.Stages
		if err := p.checkParts(); err != nil {
			return nil, fmt.Errorf("not a record of %s: stages: %w", kind, err)
		}
	}
	if doc.Conclusion != nil {
		if err := doc.Conclusion.check(); err != nil {
			return nil, fmt.Errorf("not a record of %s: verdict: %w", kind, err)
		}
	}
	if err := NewRecord(doc).check(); err != nil {
		return nil, err
	}
	return doc, nil
}

func (r *Record) check() error {
	if r.Run == "" {
		return errors.New("the record has no run identity")
	}
	if n := len(r.Rows) + len(r.Prices); n > MaxRows {
		return fmt.Errorf("%d rows: at most %d are possible", n, MaxRows)
	}
	// Warnings name rows, so a name stands for one row of a record.
	seen := make(map[string]bool)
	for i := range r.Rows {
		if err := checkRow(seen, i, r.Rows[i].Name, r.Rows[i].check); err != nil {
			return err
		}
	}
	for i := range r.Prices {
		if err := checkRow(seen, i, r.Prices[i].Name, r.Prices[i].check); err != nil {
			return err
		}
	}
	return nil
}

func checkRow(seen map[string]bool, i int, name string, check func() error) error {
	if name == "" || !plain(name) {
		return fmt.Errorf("row %d: impossible name %.60q", i, name)
	}
	if seen[name] {
		return fmt.Errorf("row %s: occurs twice", name)
	}
	seen[name] = true
	if err := check(); err != nil {
		return fmt.Errorf("row %s: %w", name, err)
	}
	return nil
}

func (r *BenchRow) check() error {
	if err := checkSamples(r.Samples, r.Rounds, func(ns float64) bool { return ns > 0 && ns <= maxNs }); err != nil {
		return err
	}
	if err := checkLabels(r.Labels); err != nil {
		return err
	}
	measured := r.Ns != nil && r.Mpps != nil
	switch {
	case r.Refused == "" && !measured:
		return errNeither
	case r.Refused != "" && (r.Ns != nil || r.Mpps != nil):
		return errBoth
	case measured && len(r.Samples) == 0:
		return errNoSamples
	}
	err := checkQuantities([]quantity{
		{"ns", "ns", r.Ns, false},
		{"mpps", "Mpps", r.Mpps, false},
		{"hop", "ns", r.Hop, true},
		{"observer", "ns", r.Observer, true},
		{"frames-per-xmit", "frames", r.FramesPerXmit, false},
	})
	if err == nil && measured && math.IsNaN(r.Ns.Median) {
		return errNeither
	}
	return err
}

func (r *TaxRow) check() error {
	if err := checkSamples(r.Samples, r.Rounds, func(ns float64) bool { return math.Abs(ns) <= maxNs }); err != nil {
		return err
	}
	if err := checkLabels(r.Labels); err != nil {
		return err
	}
	for _, s := range []struct{ name, text string }{{"calls", r.Calls}, {"premise", r.Premise}, {"note", r.Note}} {
		if utf8.RuneCountInString(s.text) > maxText || !printable(s.text) {
			return fmt.Errorf("impossible %s %.60q", s.name, s.text)
		}
	}
	measured := r.With != nil && r.Without != nil && r.Price != nil
	switch {
	case r.Refused == "" && !measured:
		return errNeither
	case r.Refused != "" && (r.With != nil || r.Without != nil || r.Price != nil):
		return errBoth
	case measured && len(r.Samples) == 0 && !r.Estimate():
		return errNoSamples
	case !measured && (r.Cycles != nil || r.NsPerPacket != nil):
		return errors.New("cycles or ns per packet of no price")
	}
	err := checkQuantities([]quantity{
		{"with", "ns", r.With, false},
		{"without", "ns", r.Without, r.Estimate()}, // a difference then
		{"price", "ns", r.Price, true},
		{"cycles", "cycles", r.Cycles, true},
		{"per-packet", "calls", r.PerPacket, false},
		{"ns-per-packet", "ns", r.NsPerPacket, true},
	})
	if err == nil && measured && (math.IsNaN(r.With.Median) || math.IsNaN(r.Without.Median) || math.IsNaN(r.Price.Median)) {
		return errNeither
	}
	return err
}

// What is wrong with a row's number, whatever its type.
var (
	errNeither   = errors.New("neither a number nor a reason why not")
	errBoth      = errors.New("a number and a reason why there is none")
	errNoSamples = errors.New("a number without samples")
)

func checkSamples(samples []float64, rounds []int, possible func(ns float64) bool) error {
	if len(samples) != len(rounds) {
		return fmt.Errorf("%d samples but %d rounds", len(samples), len(rounds))
	}
	if len(rounds) > MaxRounds {
		return fmt.Errorf("%d rounds: at most %d are possible", len(rounds), MaxRounds)
	}
	for i, x := range samples {
		if !possible(x) {
			return fmt.Errorf("impossible sample of %v ns", x)
		}
		if rounds[i] < 0 || i > 0 && rounds[i] <= rounds[i-1] {
			return fmt.Errorf("round %d is out of order", rounds[i])
		}
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	for name, value := range labels {
		if !plain(name) || !plain(value) {
			return fmt.Errorf("impossible label %.60q", name+"="+value)
		}
	}
	return nil
}

// quantity is one of a row, and what it has to be if it is there.
type quantity struct {
	name, unit string
	*stat.Quantity
	signed bool
}

func checkQuantities(qs []quantity) error {
	for _, q := range qs {
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
	return nil
}

// plain reports whether s can be printed on a terminal as it is.
func plain(s string) bool { return len(s) <= 300 && printable(s) }

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
