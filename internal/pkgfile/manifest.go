package pkgfile

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Manifest is what a folder holds beside folders.
type Manifest struct {
	// Files are the SHA-256 of regular files in hexadecimal, by their path below the folder.
	Files map[string]string
	// Links are where symbolic links lead, by their path.
	Links map[string]string
}

// Verify returns an error when the folder dir does not hold what it did when it was
// unpacked: all of it, with the same content, and nothing else.
func (m Manifest) Verify(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	defer root.Close()
	found := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() {
			return err
		}
		found++
		want, isFile := m.Files[name]
		target, isLink := m.Links[name]
		switch {
		case isFile && d.Type().IsRegular():
			if sum, err := sumOf(ctx, root, name); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil || sum != want {
				return changed(name)
			}
		case isLink && d.Type() == fs.ModeSymlink:
			if to, err := root.Readlink(name); err != nil || to != target {
				return changed(name)
			}
		default:
			return changed(name)
		}
		return nil
	})
	if err == nil && found != len(m.Files)+len(m.Links) {
		err = fmt.Errorf("%d files are gone", len(m.Files)+len(m.Links)-found)
	}
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	return nil
}

func changed(name string) error { return fmt.Errorf("%s was changed since it was unpacked", name) }

func sumOf(ctx context.Context, root *os.Root, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return Sum(ctx, io.LimitReader(f, maxBytes))
}
