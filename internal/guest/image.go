package guest

import (
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/unthunk/unthunk/internal/unpack"
)

// Limits on the file of a kernel, in bytes.
const (
	// maxVmlinux is the largest ELF file: one with all debug information has 400 MB to 1 GB.
	maxVmlinux = 4 << 30
	// maxNotes is the largest segment of notes: those of x86-64 have less than 1 KB.
	maxNotes = 1 << 20
	// maxRelease is the longest release: __NEW_UTS_LEN of include/uapi/linux/utsname.h.
	maxRelease = 64
	// maxBanner is the longest line that a kernel says of itself.
	maxBanner = 1 << 10
)

// image is what the file of a kernel says of itself.
type image struct {
	release string
	arch    string
	// version is what uname -v says: the number of the build and its time.
	version string
	// elf is set for a vmlinux, pvh when it has the entry by which QEMU boots one.
	elf, pvh bool
	// size is how much of the file is needed to boot it, in bytes.
	size int64
}

var errNoKernel = errors.New("it is neither a bzImage nor a vmlinux of x86-64, nor an Image of arm64")

// openImage opens the file of a kernel and reads what it says of itself.
func openImage(ctx context.Context, path string) (*os.File, image, error) {
	f, size, err := unpack.Open(path, maxVmlinux)
	if err != nil {
		return nil, image{}, err
	}
	i, err := parseImage(ctx, f, size)
	if err == nil && i.size > unpack.Max {
		err = fmt.Errorf("more than %d MiB", unpack.Max>>20)
	}
	if err != nil {
		f.Close()
		return nil, image{}, fmt.Errorf("read kernel %s: %w", path, err)
	}
	return f, i, nil
}

// readImage is what the file of a kernel says of itself.
func readImage(ctx context.Context, path string) (image, error) {
	f, i, err := openImage(ctx, path)
	if err != nil {
		return image{}, err
	}
	return i, f.Close()
}

// parseImage reads the head of a bzImage (Documentation/arch/x86/boot.rst), of an ELF file
// with a kernel's banner in it, or of an Image of arm64.
func parseImage(ctx context.Context, r io.ReaderAt, size int64) (image, error) {
	head := make([]byte, min(size, 0x260))
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return image{}, fmt.Errorf("read: %w", err)
	}
	switch {
	case len(head) == 0:
		return image{}, errors.New("the file is empty")
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return parseELF(ctx, r, size, head)
	case len(head) > 0x40 && string(head[0x38:0x3c]) == "ARM\x64":
		return parseArm64(ctx, r, size)
	case len(head) < 0x260 || string(head[0x202:0x206]) != "HdrS" || binary.LittleEndian.Uint16(head[0x1fe:]) != 0xaa55:
		return image{}, errNoKernel
	}
	return parseBzImage(r, size, head)
}

// parseBzImage reads a bzImage. kernel_version says the release, the builder and what uname -v
// says.
func parseBzImage(r io.ReaderAt, size int64, head []byte) (image, error) {
	le := binary.LittleEndian
	protocol, setup := le.Uint16(head[0x206:]), int64(cmp.Or(head[0x1f1], 4)+1)*512
	switch {
	case protocol < 0x20c:
		return image{}, fmt.Errorf("boot protocol %d.%02d: Linux has 2.12 since 3.8", protocol>>8, protocol&0xff)
	case le.Uint16(head[0x236:])&1 == 0: // XLF_KERNEL_64
		return image{}, fmt.Errorf("%w, but of 32 bit (CONFIG_64BIT)", errNoKernel)
	case setup+int64(le.Uint32(head[0x248:]))+int64(le.Uint32(head[0x24c:])) > size: // payload
		return image{}, errors.New("truncated: the kernel in the bzImage ends behind the file")
	}
	at := int64(le.Uint16(head[0x20e:])) + 0x200
	if at == 0x200 || at >= setup {
		return image{}, errors.New("its header has no kernel_version")
	}
	text := make([]byte, min(setup-at, maxBanner))
	if _, err := r.ReadAt(text, at); err != nil && err != io.EOF {
		return image{}, fmt.Errorf("read: %w", err)
	}
	release, version, err := banner(text, 0)
	return image{arch: AMD64, release: release, version: version, size: size}, err
}

// parseArm64 reads an Image (Documentation/arch/arm64/booting.rst), which is the kernel itself.
func parseArm64(ctx context.Context, r io.ReaderAt, size int64) (image, error) {
	release, version, err := findBanner(ctx, io.NewSectionReader(r, 0, size))
	if err == nil && release == "" {
		err = fmt.Errorf("an Image of arm64 in which no %q stands", linuxVersion)
	}
	return image{arch: ARM64, release: release, version: version, size: size}, err
}

// parseELF reads a vmlinux. What is loaded of it is needed, its symbols and its debug
// information behind that are not.
func parseELF(ctx context.Context, r io.ReaderAt, size int64, head []byte) (i image, err error) {
	le := binary.LittleEndian
	if len(head) < 64 || head[elf.EI_CLASS] != byte(elf.ELFCLASS64) || head[elf.EI_DATA] != byte(elf.ELFDATA2LSB) ||
		elf.Machine(le.Uint16(head[18:])) != elf.EM_X86_64 {
		return i, errNoKernel
	}
	if t := elf.Type(le.Uint16(head[16:])); t != elf.ET_EXEC && t != elf.ET_DYN {
		return i, fmt.Errorf("%w, but an object file", errNoKernel)
	}
	at, each, n := le.Uint64(head[32:]), le.Uint16(head[54:]), le.Uint16(head[56:])
	if n == 0 || n > 64 || each != 56 || at > uint64(size) || at+uint64(n)*56 > uint64(size) {
		return i, fmt.Errorf("%w: an ELF file without segments of a kernel", errNoKernel)
	}
	segments := make([]byte, int(n)*56)
	if _, err := r.ReadAt(segments, int64(at)); err != nil && err != io.EOF {
		return i, fmt.Errorf("read: %w", err)
	}
	i = image{arch: AMD64, elf: true, size: int64(at) + int64(len(segments))}
	for ; len(segments) > 0; segments = segments[56:] {
		kind, start, length := elf.ProgType(le.Uint32(segments)), le.Uint64(segments[8:]), le.Uint64(segments[32:])
		if kind != elf.PT_LOAD && kind != elf.PT_NOTE {
			continue
		}
		if start > uint64(size) || length > uint64(size)-start {
			return i, errors.New("truncated: a segment ends behind the file")
		}
		i.size = max(i.size, int64(start+length))
		part := io.NewSectionReader(r, int64(start), int64(length))
		switch {
		case kind == elf.PT_NOTE && length <= maxNotes:
			pvh, err := hasPVH(part)
			if err != nil {
				return i, err
			}
			i.pvh = i.pvh || pvh
		case kind == elf.PT_LOAD && !numbered.MatchString(i.version):
			release, version, err := findBanner(ctx, part)
			if err != nil {
				return i, err
			}
			if release != "" {
				i.release, i.version = release, version
			}
		}
	}
	if i.release == "" {
		return i, fmt.Errorf("%w: an ELF file in which no %q stands", errNoKernel, linuxVersion)
	}
	return i, nil
}

// linuxVersion begins linux_banner (init/version-timestamp.c).
const linuxVersion = "Linux version "

// numbered begins what uname -v says.
var numbered = regexp.MustCompile(`^#[0-9]`)

// findBanner looks for a kernel's banner in what r reads, which may be the whole of a kernel. The
// release is empty where there is none. From Linux 6.1 on there is one more, without the number of
// the build, that was linked before it was known (init/version.c): it counts where no other is.
func findBanner(ctx context.Context, r io.Reader) (release, version string, err error) {
	b := make([]byte, 0, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", "", err
		}
		n, err := io.ReadFull(r, b[len(b):cap(b)])
		b = b[:len(b)+n]
		last := err != nil
		if last && err != io.EOF && err != io.ErrUnexpectedEOF {
			return "", "", fmt.Errorf("read: %w", err)
		}
		for rest := b; ; {
			k := bytes.Index(rest, []byte(linuxVersion))
			if k < 0 || !last && k > len(rest)-maxBanner {
				break
			}
			rest = rest[k+len(linuxVersion):]
			r, v, err := banner(rest[:min(len(rest), maxBanner)], 1)
			switch {
			case err != nil:
			case numbered.MatchString(v):
				return r, v, nil
			case release == "":
				release, version = r, v
			}
		}
		if last {
			return release, version, nil
		}
		b = b[:copy(b, b[len(b)-maxBanner:])]
	}
}

// banner reads "RELEASE (BUILDER) VERSION", and between these as many more words in parentheses
// as compilers says, which is one in linux_banner.
func banner(text []byte, compilers int) (release, version string, err error) {
	text, _, _ = bytes.Cut(text, []byte{0})
	text, _, _ = bytes.Cut(text, []byte{'\n'})
	word, rest, _ := bytes.Cut(text, []byte(" "))
	if !isRelease(string(word)) {
		return "", "", fmt.Errorf("impossible release %.80q", word)
	}
	for range compilers + 1 {
		if !bytes.HasPrefix(rest, []byte("(")) {
			break
		}
		depth, end := 0, 0 // a compiler's name has parentheses in it
		for k, c := range rest {
			switch c {
			case '(':
				depth++
			case ')':
				depth--
			}
			if end = k + 1; depth == 0 {
				break
			}
		}
		rest = bytes.TrimPrefix(rest[end:], []byte(" "))
	}
	return string(word), string(rest), nil
}

// isRelease tells whether uname -r may say that. It is the name of a folder, too.
func isRelease(s string) bool {
	if s == "" || len(s) > maxRelease || s[0] < '0' || s[0] > '9' {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '/' || c == '\\' || c == '"' {
			return false
		}
	}
	return true
}

// hasPVH tells whether notes hold XEN_ELFNOTE_PHYS32_ENTRY, the entry of a kernel with
// CONFIG_PVH (include/xen/interface/elfnote.h).
func hasPVH(r io.Reader) (bool, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxNotes))
	if err != nil {
		return false, fmt.Errorf("read: %w", err)
	}
	const entry = 18
	for len(b) >= 12 {
		le := binary.LittleEndian
		name, desc, kind := align4(le.Uint32(b)), align4(le.Uint32(b[4:])), le.Uint32(b[8:])
		b = b[12:]
		if name > uint64(len(b)) || desc > uint64(len(b))-name {
			return false, nil
		}
		if kind == entry && bytes.HasPrefix(b[:name], []byte("Xen\x00")) {
			return true, nil
		}
		b = b[name+desc:]
	}
	return false, nil
}

func align4(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }

// copyImage copies a kernel for QEMU, who may have no right to read the file, and who must not
// read what is no regular file. Of a vmlinux only what is loaded is copied. Of a bzImage, with
// unpacked, that is the vmlinux in it where QEMU can boot that.
func copyImage(ctx context.Context, to *os.File, path string, unpacked bool) error {
	from, i, err := openImage(ctx, path)
	if err != nil {
		return err
	}
	defer from.Close()
	if !i.elf && unpacked {
		if done, err := copyPacked(ctx, to, path); done || err != nil {
			return err
		}
	}
	if i.elf {
		return copyLoaded(ctx, to, from, i)
	}
	_, err = io.Copy(to, unpack.Heard(ctx, io.LimitReader(from, i.size)))
	return err
}

// copyPacked copies the vmlinux in a bzImage. done is false, and nothing is copied, where it cannot be unpacked or QEMU
// cannot boot it. A guest would take 1.1 s of a core to unpack Debian's, this takes 0.3 s.
func copyPacked(ctx context.Context, to *os.File, path string) (done bool, err error) {
	release, err := unpack.Reserve(ctx, path)
	if err != nil {
		return false, ctx.Err()
	}
	defer release()
	b, err := unpack.File(ctx, path)
	if err != nil {
		return false, ctx.Err()
	}
	i, err := parseImage(ctx, bytes.NewReader(b), int64(len(b)))
	if err != nil || !i.pvh {
		return false, ctx.Err()
	}
	return true, copyLoaded(ctx, to, bytes.NewReader(b), i)
}

// copyLoaded copies what is loaded of a vmlinux.
func copyLoaded(ctx context.Context, to *os.File, from io.Reader, i image) error {
	if _, err := io.Copy(to, unpack.Heard(ctx, io.LimitReader(from, i.size))); err != nil {
		return err
	}
	// Without the sections, which are not there.
	if _, err := to.WriteAt(make([]byte, 8), 40); err != nil { // e_shoff
		return err
	}
	_, err := to.WriteAt(make([]byte, 4), 60) // e_shnum, e_shstrndx
	return err
}
