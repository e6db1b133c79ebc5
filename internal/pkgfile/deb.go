package pkgfile

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/unpack"
)

// MaxPackage is the largest package, in bytes: linux-image-dbg of Debian has 1 GB.
const MaxPackage = 1 << 30

// unpack adds what a package holds. Its format is known by its bytes.
func (t *tree) unpack(p Package) error {
	f, size, err := unpack.Open(p.Path, MaxPackage)
	if err != nil {
		return err
	}
	defer f.Close()
	return t.readSum(io.NewSectionReader(f, 0, size), p.SHA256)
}

// readSum adds what the package in r holds, and returns an error when want, unless it is
// empty, is not the SHA-256 of what was read. It hashes the bytes that are unpacked: who
// owns a file can rename another one to its name, or write into it, at any time.
func (t *tree) readSum(r io.Reader, want string) error {
	if want == "" {
		return t.read(r)
	}
	sum := sha256.New()
	r = io.TeeReader(r, sum)
	if err := t.read(r); err != nil {
		return err
	}
	// What is behind the last file.
	if _, err := io.Copy(io.Discard, unpack.Heard(t.ctx, r)); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != want {
		return errors.New("it was changed while it was read")
	}
	return nil
}

// read adds what the package in r holds.
func (t *tree) read(r io.Reader) error {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return errors.New("it is neither a .deb nor a .rpm")
	}
	switch {
	case string(magic) == arMagic:
		return t.deb(r)
	case bytes.HasPrefix(magic, rpmMagic):
		return t.rpm(r)
	}
	return errors.New("it is neither a .deb nor a .rpm")
}

const arMagic = "!<arch>\n"

// deb reads the members of an ar archive up to data.tar (deb(5)), each behind a header of
// 60 bytes: the name in 16, the size in decimal in 10 at 48, and "`\n" (ar(5)).
func (t *tree) deb(r io.Reader) error {
	header := make([]byte, 60)
	for range 16 { // there are three
		if _, err := io.ReadFull(r, header); err != nil {
			return fmt.Errorf("find data.tar: %w", err)
		}
		size, err := strconv.ParseInt(strings.TrimRight(string(header[48:58]), " "), 10, 64)
		if err != nil || size < 0 || string(header[58:]) != "`\n" {
			return errors.New("find data.tar: a broken header")
		}
		member := io.LimitReader(r, size)
		if strings.HasPrefix(string(header), "data.tar") {
			return t.tar(member)
		}
		if _, err := io.CopyN(io.Discard, r, size+size&1); err != nil {
			return fmt.Errorf("find data.tar: %w", err)
		}
	}
	return errors.New("find data.tar: there is none")
}

// tar reads a tar archive that may be packed.
func (t *tree) tar(packed io.Reader) error {
	r, err := unpack.NewReader(t.ctx, packed)
	if err != nil {
		return err
	}
	defer r.Close()
	archive := tar.NewReader(io.LimitReader(r, t.stream))
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read data.tar: %w", err)
		}
		e := entry{name: h.Name, executable: h.Mode&0o100 != 0, size: h.Size, target: h.Linkname}
		switch h.Typeflag {
		case tar.TypeReg:
			e.kind = regular
		case tar.TypeDir:
			e.kind = folder
		case tar.TypeSymlink:
			e.kind = symlink
		case tar.TypeLink:
			e.kind = hardlink
		}
		if err := t.add(e, archive); err != nil {
			return err
		}
	}
}
