package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/unpack"
)

// Limits of what waits for a server that is away: a year of weekly records.
const (
	MaxSpooled      = 64
	MaxSpooledBytes = 64 << 20
)

// The name of a record in the spool begins with a number of so many digits, higher than those of all that is there; it is 1 again
// once the spool is empty. Names and files have the time of a clock that may have been wrong.
const (
	numberDigits = 10
	maxNumber    = 9_999_999_999
	refusedEnd   = ".refused"
)

// number is that of a record in the spool; 0 where the name has none, as earlier versions gave.
func number(file string) int64 {
	digits, _, _ := strings.Cut(filepath.Base(file), "-")
	n, err := strconv.ParseUint(digits, 10, 63)
	if len(digits) != numberDigits || err != nil {
		return 0
	}
	return int64(n)
}

// Add puts a record into the spool. It returns how many older ones had to go.
func (p Post) Add(name string, b []byte) (dropped int, err error) {
	if len(b) > MaxSpooledBytes {
		return 0, fmt.Errorf("keep record for %s: it has more than %d MiB", p.Spool, MaxSpooledBytes>>20)
	}
	if err := os.MkdirAll(p.Spool, 0o700); err != nil {
		return 0, fmt.Errorf("keep record for %s: %w", p.Spool, err)
	}
	before, err := p.waiting()
	if err != nil {
		return 0, err
	}
	refused, err := p.refused()
	if err != nil {
		return 0, err
	}
	last := int64(0)
	for _, file := range slices.Concat(before, refused) {
		last = max(last, number(file))
	}
	added := filepath.Join(p.Spool, fmt.Sprintf("%0*d-%s", numberDigits, min(last+1, maxNumber), name))
	if err := outfile.Replace(added, b); err != nil {
		return 0, err
	}
	kept, size := 1, int64(len(b))
	for _, file := range slices.Backward(before) {
		info, err := os.Lstat(file)
		if err != nil || file == added || info.Size() > MaxSpooledBytes { // Send puts the latter aside
			continue
		}
		kept++
		size += info.Size()
		if (kept > MaxSpooled || size > MaxSpooledBytes) && os.Remove(file) == nil {
			dropped++
		}
	}
	return dropped, nil
}

// checkSpool refuses a spool that is a link: what is at its other end would be sent, and removed.
func (p Post) checkSpool() error {
	info, err := os.Lstat(p.Spool)
	if err == nil && !info.IsDir() {
		err = errors.New("it is not a folder")
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open the folder of records that wait, %s: %w", p.Spool, cause(err))
	}
	return nil
}

// waiting are the records that wait in the spool, refused those that were put aside there; the oldest first.
func (p Post) waiting() ([]string, error) { return p.files("*.json") }
func (p Post) refused() ([]string, error) { return p.files("*.json" + refusedEnd) }

// files are those of the spool with such names, in the order in which they were written; those without a number by name, before
// the others. What is no regular file is no record: a link would lead to what others may not see, and a pipe would hold up the
// records behind it.
func (p Post) files(pattern string) ([]string, error) {
	if p.Spool == "" { // no server: the folder would be the one that the process is in
		return nil, nil
	}
	if err := p.checkSpool(); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(globEscaper.Replace(p.Spool), pattern))
	files = slices.DeleteFunc(files, func(file string) bool {
		info, err := os.Lstat(file)
		return err != nil || !info.Mode().IsRegular()
	})
	slices.SortFunc(files, func(a, b string) int { return cmp.Or(cmp.Compare(number(a), number(b)), strings.Compare(a, b)) })
	return files, err
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// Waiting is how many records are in the spool.
func (p Post) Waiting() int {
	files, _ := p.waiting()
	return len(files)
}

// Send sends what is in the spool, the oldest first, until the server takes no more. What it will never take, and what cannot be
// read, is put aside: NAME.json.refused. A record whose connection breaks waits, and holds up only those of more than half its size.
// It returns how many were put aside; the error says why the last of them was, what failed first in doing so, and why records wait.
func (p Post) Send(ctx context.Context) (aside int, err error) {
	files, err := p.waiting()
	if err != nil || len(files) == 0 {
		return 0, err
	}
	client, err := p.client()
	if err != nil {
		return 0, err
	}
	defer client.CloseIdleConnections()
	var told, unmoved, broken error
	most := math.MaxInt // bytes of a record that is tried
	for _, file := range files {
		b, err := readRecord(file)
		if errors.Is(err, fs.ErrNotExist) { // another agent has sent it
			continue
		}
		if err == nil && len(b) > most {
			continue
		}
		if err == nil {
			err = p.post(ctx, client, filepath.Base(file), b)
		}
		_, never := errors.AsType[errNever](err)
		switch {
		case never:
			moved, failed := p.putAside(file)
			told, unmoved = err, cmp.Or(unmoved, failed)
			if moved {
				aside++
			}
		case err != nil && bySize(err) && ctx.Err() == nil:
			// Each attempt may take postTime: sizes that differ by little would use up the time of all.
			broken, most = err, len(b)/2
		case err != nil:
			return aside, errors.Join(told, unmoved, err)
		default:
			if err := os.Remove(file); err != nil {
				return aside, errors.Join(told, unmoved, fmt.Errorf("remove record that was sent: %w", err))
			}
		}
	}
	return aside, errors.Join(told, unmoved, broken)
}

// readRecord reads a record that waits. It returns an errNever when the file cannot be read.
func readRecord(file string) ([]byte, error) {
	b, err := unpack.ReadFileNoFollow(file, MaxSpooledBytes)
	if err == nil {
		return b, nil
	}
	err = fmt.Errorf("read record: %w", err)
	if ofFile(err) {
		return nil, errNever{err}
	}
	return nil, err
}

// ofFile tells whether an error of reading says something of the file, and not of the process or of what there is no more.
func ofFile(err error) bool {
	return !slices.ContainsFunc([]error{fs.ErrNotExist, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EINTR}, func(other error) bool {
		return errors.Is(err, other)
	})
}

// putAside renames a record that will never be sent, and says whether it did. Of those before it the newest stay, [MaxSpooled]
// with it.
func (p Post) putAside(file string) (moved bool, err error) {
	before, err := p.refused()
	if err != nil {
		return false, err
	}
	to := file + refusedEnd
	if err := os.Rename(file, to); err != nil {
		return false, fmt.Errorf("put record aside: %w", err)
	}
	before = slices.DeleteFunc(before, func(old string) bool { return old == to })
	for _, old := range before[:max(0, len(before)-(MaxSpooled-1))] {
		err = errors.Join(err, os.Remove(old))
	}
	return true, err
}
