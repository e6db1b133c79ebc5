package record

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/unpack"
)

// Limits on what [Load] accepts.
const (
	// MaxSize of a file in bytes.
	MaxSize = 64 << 20
	// MaxRows of a document.
	MaxRows = 10_000
	// MaxRounds of a row.
	MaxRounds = 100_000
	// MaxName is the length of a name or of a label, in bytes as JSON has them.
	MaxName = 1000
	// MaxText is the length of a row's sentences in characters.
	MaxText = 1000
	// maxObjects of a document: rows, functions, stacks and all else in its lists.
	maxObjects = 500_000
	// maxPlain are the numbers and texts in the lists of a document that have nothing else.
	maxPlain = 5_000_000
	// maxNamed are the fields of all objects of a document, maxKeys those of one: a
	// machine may have thousands of devices.
	maxNamed = 3_000_000
	maxKeys  = 5000
	// maxNames are in a list of a row: what one pointer may hold, the way from a root.
	maxNames = 1000
	// maxMemory of all records that are in use at the same time, in bytes, as [counter]
	// estimates it. What is made of them takes some more.
	maxMemory = 320 << 20
	// maxNs is 1000 s a packet: no chain is slower.
	maxNs = 1e12
	// maxHostText is that of a text of the fingerprint: a kernel's command line has 2048 characters on x86 and on arm64.
	maxHostText = 4096
)

// NewRunID is a new random run identity: 26 letters and digits.
func NewRunID() string { return rand.Text() }

// Save writes doc to path as [Encode] makes it, by [outfile.Write].
func Save(path string, doc any) error { return save(path, doc, outfile.Write) }

// SaveNamed is [Save] to a name that the user did not choose, by [outfile.Replace]: it follows no link there.
func SaveNamed(path string, doc any) error { return save(path, doc, outfile.Replace) }

func save(path string, doc any, write func(string, []byte) error) error {
	b, err := Encode(doc)
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return write(path, b)
}

// Encode is doc as indented JSON, without what no terminal shows. A record of a kind that [Parse] reads is refused when Parse would
// refuse it.
func Encode(doc any) ([]byte, error) {
	d, ok := doc.(Doc)
	most := MaxSize
	if !ok {
		most = math.MaxInt
	}
	var b []byte
	err := compact(doc, func(text []byte) (err error) {
		b, err = indented(text, most)
		return err
	})
	switch {
	case errors.Is(err, errSize):
		return nil, fmt.Errorf("no verb could read the record: %w", err)
	case err != nil:
		return nil, fmt.Errorf("encode record: %w", err)
	case !ok:
		return b, nil
	}
	i := slices.IndexFunc(kinds(), func(k kind) bool { return k.name == d.head().Kind })
	if i < 0 {
		return b, nil
	}
	if err := new(Together).fits(b); err != nil {
		return nil, fmt.Errorf("no verb could read the record: %w", err)
	}
	if err := kinds()[i].check(d); err != nil { // b is not decoded for it, which takes six times as much memory
		return nil, fmt.Errorf("no verb could read the record: %w", err)
	}
	return b, nil
}

// cause strips the operation and the name of the file.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// KindOf is the kind of a record, whichever verb made it. What is no record of
// unthunk is an error of one line with the file's name.
func KindOf(path string) (string, error) {
	kind, err := load(path, func(b []byte) (*string, error) {
		kind, err := new(Together).parseHead(b)
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
	// A record takes some six times its size: more than the limit of a cgroup, and the kernel
	// would end the process without a word.
	if most := memory.Limit() / 8; info.Mode().IsRegular() && info.Size() <= MaxSize && uint64(info.Size()) > most {
		return nil, fmt.Errorf("load %s: it has %d KiB, and for more than %d there is no memory here", path, info.Size()>>10, most>>10)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("load %s: %w", path, unix.EISDIR)
	}
	f, _, err := unpack.Open(path, math.MaxInt64) // it may be another one by now
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
