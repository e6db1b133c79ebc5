package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// MaxNames is how many names a folder of a tree may have. A package has no more in all of its folders.
const MaxNames = 100_000

// Folders is a file system whose folders are read until its context ends, and have at most [MaxNames] names.
type Folders struct {
	fs.FS
	ctx context.Context
	err error
}

// NewFolders is that of fsys. ctx holds for all that is read.
func NewFolders(ctx context.Context, fsys fs.FS) *Folders { return &Folders{FS: fsys, ctx: ctx} }

// Err is why a folder could not be read to its end: [fs.Glob] tells nobody.
func (f *Folders) Err() error {
	if err := f.ctx.Err(); err != nil {
		return err
	}
	return f.err
}

// ReadDir lists a folder by name.
func (f *Folders) ReadDir(name string) ([]fs.DirEntry, error) {
	info, err := f.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() { // to open a pipe could wait without end
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	folder, ok := file.(fs.ReadDirFile)
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.ErrUnsupported}
	}
	var all []fs.DirEntry
	for {
		if err := f.ctx.Err(); err != nil {
			return nil, err
		}
		some, err := folder.ReadDir(1024)
		all = append(all, some...)
		switch {
		case len(all) > MaxNames:
			f.err = &fs.PathError{Op: "readdir", Path: name, Err: fmt.Errorf("more than %d names", MaxNames)}
			return nil, f.err
		case errors.Is(err, io.EOF):
			slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
			return all, nil
		case err != nil:
			return nil, err
		}
	}
}

// Stat opens nothing: the name may be a pipe's.
func (f *Folders) Stat(name string) (fs.FileInfo, error) { return fs.Stat(f.FS, name) }
