package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/pkgfile"
	"github.com/unthunk/unthunk/internal/unpack"
)

// rootCache is the cache of root, whoever root was before sudo and whatever HOME says: as
// root nothing is started from the folder of another user, and nothing is left there.
const rootCache = "/var/cache/unthunk"

// CacheDir is where kernels are kept between runs: /var/cache/unthunk for root, and
// unthunk-guest in a user's own cache directory ($XDG_CACHE_HOME or ~/.cache).
func CacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return rootCache, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	return filepath.Join(dir, "unthunk-guest"), nil
}

// manifestName is the file in which a folder of the cache has what was unpacked into it.
const manifestName = "manifest.json"

// maxManifest is the largest manifest, in bytes: 100 000 files with long names.
const maxManifest = 64 << 20

// cached is a folder of the cache: manifest.json, and in root what packages hold.
type cached struct{ dir string }

func (c cached) root() string { return filepath.Join(c.dir, "root") }

// verify returns an error that is [fs.ErrNotExist] when the folder is not there, or is not
// what it was when it was made: it is then made anew. As root one that others can write
// is an error.
func (c cached) verify(ctx context.Context) error {
	if err := trusted(c.dir); err != nil {
		return err
	}
	b, err := unpack.ReadFile(filepath.Join(c.dir, manifestName), maxManifest)
	if err != nil {
		return fs.ErrNotExist
	}
	var m pkgfile.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return fs.ErrNotExist
	}
	if err := m.Verify(ctx, c.root()); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return fs.ErrNotExist
	}
	return nil
}

// fill makes the folder: download puts packages into a folder and names them, or names
// those that are elsewhere with their SHA-256; they are unpacked; check looks at what came out.
func (c cached) fill(
	ctx context.Context, download func(dir string) ([]pkgfile.Package, error), check func(root string) error,
) error {
	parent := filepath.Dir(c.dir)
	if err := openCache(ctx, parent); err != nil {
		return err
	}
	temp, done, err := scratch(ctx, parent)
	if err != nil {
		return fmt.Errorf("unpack packages: %w", err)
	}
	defer done()
	debs, made := filepath.Join(temp, "debs"), cached{filepath.Join(temp, "made")}
	if err := errors.Join(os.Mkdir(debs, 0o755), os.MkdirAll(made.root(), 0o755)); err != nil {
		return fmt.Errorf("unpack packages: %w", err)
	}
	packages, err := download(debs)
	if err != nil {
		return err
	}
	m, err := pkgfile.Unpack(ctx, made.root(), packages...)
	if err != nil {
		return err
	}
	if err := check(made.root()); err != nil {
		return err
	}
	b, err := encode(m, maxManifest)
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.WriteFile(filepath.Join(made.dir, manifestName), b, 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	// Another run may have made it by now; what is not as it was made, or is something else, is made anew.
	if os.Rename(made.dir, c.dir) == nil || c.verify(ctx) == nil && check(c.root()) == nil {
		return nil
	}
	if err := removeAll(ctx, c.dir); err != nil {
		return fmt.Errorf("unpack packages: %w", err)
	}
	if err := os.Rename(made.dir, c.dir); err != nil {
		return fmt.Errorf("unpack packages: %w", err)
	}
	return nil
}

// encode is a manifest of at most limit bytes: verify reads no larger one.
func encode(m pkgfile.Manifest, limit int) ([]byte, error) {
	var b bytes.Buffer
	w := json.NewEncoder(&b)
	w.SetEscapeHTML(false) // which makes six bytes of one
	if err := w.Encode(m); err != nil {
		return nil, err
	}
	if b.Len() > limit {
		return nil, fmt.Errorf("it has %d bytes, more than %d", b.Len(), limit)
	}
	return b.Bytes(), nil
}

// files are packages that only this user can change: their bytes are not looked at again.
func files(paths []string) []pkgfile.Package {
	packages := make([]pkgfile.Package, len(paths))
	for i, path := range paths {
		packages[i].Path = path
	}
	return packages
}

// openCache makes the cache, and removes what killed runs left in it.
func openCache(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	if err := trusted(dir); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(dir, scratchPrefix+"*"))
	if err != nil {
		return fmt.Errorf("clean cache: %w", err)
	}
	for _, path := range left {
		f, err := lock(path)
		if err != nil {
			continue // a run that lives has it
		}
		err = removeAll(ctx, path)
		f.Close()
		if err != nil {
			return fmt.Errorf("clean cache: %w", err)
		}
	}
	return nil
}

const scratchPrefix = "unpack-"

// grace is how long after its context has ended a scratch folder may still be removed.
const grace = 300 * time.Millisecond

// scratch makes a folder that done removes. It is locked, which ends with this process:
// [openCache] removes those that are not, and what done leaves when ctx ends.
func scratch(ctx context.Context, parent string) (dir string, done func(), err error) {
	for range 10 {
		if dir, err = os.MkdirTemp(parent, scratchPrefix); err != nil {
			return "", nil, err
		}
		// Before it is locked another run may take it for one that was left.
		f, err := lock(dir)
		if err != nil {
			continue
		}
		return dir, func() {
			late, cancel := context.WithCancel(context.WithoutCancel(ctx))
			stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
			removeAll(late, dir)
			stop()
			cancel()
			f.Close()
		}, nil
	}
	return "", nil, errors.New("others remove what is made in " + parent)
}

// removeAll removes path and what is in it. When ctx ends it returns the error of ctx, and
// what it has not come to stays: a package may have 100 000 folders.
func removeAll(ctx context.Context, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := os.Remove(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries, e := os.ReadDir(path)
	if e != nil {
		return err
	}
	for _, e := range entries {
		if err := removeAll(ctx, filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lock locks a folder, or returns an error when another has it.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// trusted returns an error when this is root and another user could change path or what
// leads to it. A path that is not there is as good as its folder.
func trusted(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return trustedChain(path, true, 0)
}

// trustedChain looks at path, at what it is a link to, and at the folders above. last says
// that it is the end of the chain: a folder on the way may be one in which all can make
// files and nobody can remove another's, as /tmp.
func trustedChain(path string, last bool, links int) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return trustedChain(filepath.Dir(path), last, links)
	case err != nil:
		return err
	case links > 40:
		return &fs.PathError{Op: "trust", Path: path, Err: syscall.ELOOP}
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("find who owns %s", path)
	}
	link, sticky := info.Mode()&fs.ModeSymlink != 0, info.IsDir() && info.Mode()&fs.ModeSticky != 0 && !last
	byOthers := info.Mode()&0o002 != 0 || info.Mode()&0o020 != 0 && stat.Gid != 0
	switch {
	case stat.Uid != 0:
		return fmt.Errorf("%s belongs to user %d: root uses what root owns", path, stat.Uid)
	case byOthers && !link && !sticky:
		return fmt.Errorf("others than root can write %s: root uses what only root can write", path)
	}
	if link {
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		if err := trustedChain(to, last, links+1); err != nil {
			return err
		}
	}
	if path == "/" {
		return nil
	}
	return trustedChain(filepath.Dir(path), false, links)
}
