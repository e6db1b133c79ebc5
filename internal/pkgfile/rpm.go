package pkgfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/unthunk/unthunk/internal/unpack"
)

var rpmMagic = []byte{0xed, 0xab, 0xee, 0xdb}

// rpm reads a package of RPM 3 or 4 (docs/manual/format_v4.md of rpm), of which 8 bytes
// were read: a lead of 96 bytes, the header of signatures, padded to 8 bytes, the header,
// and a cpio archive that is packed.
func (t *tree) rpm(r io.Reader) error {
	if _, err := io.CopyN(io.Discard, r, 96-8); err != nil {
		return fmt.Errorf("read lead: %w", err)
	}
	for _, align := range []int64{8, 1} {
		if err := skipHeader(r, align); err != nil {
			return fmt.Errorf("read header: %w", err)
		}
	}
	payload, err := unpack.NewReader(t.ctx, r)
	if err != nil {
		return err
	}
	defer payload.Close()
	return t.cpio(io.LimitReader(payload, t.stream))
}

// skipHeader reads over a header: its magic, the number of its entries, which have 16
// bytes, and the size of their values.
func skipHeader(r io.Reader, align int64) error {
	intro := make([]byte, 16)
	if _, err := io.ReadFull(r, intro); err != nil {
		return err
	}
	entries, size := binary.BigEndian.Uint32(intro[8:]), binary.BigEndian.Uint32(intro[12:])
	if string(intro[:3]) != "\x8e\xad\xe8" || entries > 1<<20 || size > 256<<20 {
		return errors.New("it is broken")
	}
	n := 16*int64(entries) + int64(size)
	_, err := io.CopyN(io.Discard, r, (n+align-1)/align*align)
	return err
}

// cpio reads an archive in the "newc" format: a header of 110 bytes, the name and the
// content, the last two padded to 4 bytes.
func (t *tree) cpio(r io.Reader) error {
	header := make([]byte, 110)
	inodes := make(map[[2]uint64]string) // the name of the file that has the content
	waiting := make(map[[2]uint64][]entry)
	for {
		if _, err := io.ReadFull(r, header); err != nil {
			return fmt.Errorf("read cpio archive: %w", err)
		}
		if magic := string(header[:6]); magic != "070701" && magic != "070702" {
			return fmt.Errorf("read cpio archive: the format %.6q is not known", magic)
		}
		var fields [13]uint64
		for i := range fields {
			v, err := strconv.ParseUint(string(header[6+8*i:][:8]), 16, 32)
			if err != nil {
				return errors.New("read cpio archive: a broken header")
			}
			fields[i] = v
		}
		mode, links, size := fields[1], fields[4], int64(fields[6])
		name, err := t.text(r, int64(fields[11]), len(header))
		if err != nil {
			return err
		}
		if name == "TRAILER!!!" {
			break
		}
		e := entry{name: name, executable: mode&0o100 != 0, size: size}
		content := &io.LimitedReader{R: r, N: size}
		inode := [2]uint64{fields[0], fields[7]<<32 | fields[8]}
		switch mode & 0o170000 {
		case 0o100000:
			e.kind = regular
			// Files of one inode have their content with the last of them.
			if links > 1 && size == 0 {
				if waiting[inode] = append(waiting[inode], e); len(waiting[inode]) > maxEntries {
					return errEntries
				}
				e.kind = other
			} else if links > 1 {
				inodes[inode] = name
			}
		case 0o040000:
			e.kind = folder
		case 0o120000:
			e.kind = symlink
			target := make([]byte, min(size, maxPath+1))
			if _, err := io.ReadFull(content, target); err != nil {
				return fmt.Errorf("read cpio archive: %w", err)
			}
			e.target = string(target)
		}
		if err := t.add(e, content); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, r, content.N+-size&3); err != nil {
			return fmt.Errorf("read cpio archive: %w", err)
		}
	}
	return t.sameInode(waiting, inodes)
}

// sameInode adds the files that have the content of another one, or none.
func (t *tree) sameInode(waiting map[[2]uint64][]entry, inodes map[[2]uint64]string) error {
	for inode, entries := range waiting {
		for _, e := range entries {
			if target, ok := inodes[inode]; ok {
				e.kind, e.target = hardlink, target
			}
			if err := t.add(e, eof{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// eof has no content.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// text reads a name of size bytes, the last of which is zero. before bytes of the header
// are behind; with them it is padded to 4 bytes.
func (t *tree) text(r io.Reader, size int64, before int) (string, error) {
	if size < 1 || size > maxPath+1 {
		return "", fmt.Errorf("read cpio archive: a name of %d bytes", size)
	}
	b := make([]byte, size+-(int64(before)+size)&3)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", fmt.Errorf("read cpio archive: %w", err)
	}
	return string(b[:size-1]), nil
}
