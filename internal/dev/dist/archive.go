package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// sumsName is the file of sums, as sha256sum -c reads it.
const sumsName = "SHA256SUMS"

// writeArchive writes what is installed beside the binary, with the paths of an
// installation, for a machine without a package manager; and what deploys it.
func writeArchive(s share, v version, at time.Time, out string) error {
	name := filepath.Join(out, fmt.Sprintf("unthunk-%s-share.tar.gz", v))
	return writeFile(name, func(f *os.File) error {
		z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
		if err != nil {
			return err
		}
		w := tar.NewWriter(z)
		for _, i := range s.items {
			if !i.inFormat("tar") {
				continue
			}
			data, err := os.ReadFile(i.from)
			if err != nil {
				return err
			}
			if err := add(w, strings.TrimPrefix(i.to, "/"), data, at); err != nil {
				return err
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
		return z.Close()
	})
}

// archive writes the files of a folder as a tar, in the order of their names.
func archive(to io.Writer, from fs.FS, at time.Time) error {
	w := tar.NewWriter(to)
	err := fs.WalkDir(from, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		return add(w, path.Clean(name), data, at)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func add(w *tar.Writer, name string, data []byte, at time.Time) error {
	h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: at, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// writeSums writes the SHA-256 of each file of a folder into it.
func writeSums(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sum files: %w", err)
	}
	var b bytes.Buffer
	for _, e := range entries {
		sum, err := sha256Of(filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("sum files: %w", err)
		}
		fmt.Fprintf(&b, "%x  %s\n", sum, e.Name())
	}
	if err := os.WriteFile(filepath.Join(dir, sumsName), b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write sums: %w", err)
	}
	return nil
}

func sha256Of(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
