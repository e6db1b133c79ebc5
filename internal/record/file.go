package record

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
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
