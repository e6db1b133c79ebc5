package outfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links a path may go through, as in the kernel
// (MAXSYMLINKS).
const maxLinks = 40

// target is where a path leads: a name in a folder that is held open, so that nobody
// can exchange a part of the path any more.
type target struct {
	// dir is opened with O_PATH.
	dir  int
	name string
	// old is the file that is there, nil when there is none.
	old *unix.Stat_t
	// descriptor says that the name is a link of /proc to an open file: /dev/stdout.
	descriptor bool
	// replaces says that a link at the end of the path is what is there, wherever it leads.
	replaces bool
}

func (t target) close() { unix.Close(t.dir) }

// resolve follows path name by name. A symbolic link counts only when its owner is the
// caller, root, or the owner of the folder it is in: fs.protected_symlinks is the same
// rule for sticky folders, which a machine may have turned off, and which does not hold
// for a program that reads links by itself.
func resolve(path string) (t target, err error) { return target{}.walk(path, false) }

// MkdirAll makes the folder path and those above it that are not there, with all rights less
// the umask. It follows links as [Write] does, so that it makes nothing behind another user's.
func MkdirAll(path string) error {
	if path == "" {
		return errors.New("make folder: no name")
	}
	t, err := target{}.walk(path, true)
	switch {
	case errors.Is(err, unix.EISDIR): // as it should be
		return nil
	case err != nil:
		return &os.PathError{Op: "make folder", Path: path, Err: err}
	}
	t.close()
	return &os.PathError{Op: "make folder", Path: path, Err: unix.ENOTDIR}
}

// walk is resolve; with makes it makes the folders that are not there.
func (t target) walk(path string, makes bool) (_ target, err error) {
	names := strings.Split(path, "/")
	at := "."
	if filepath.IsAbs(path) {
		at = "/"
	}
	if t.dir, err = unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return t, err
	}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	for links := 0; len(names) > 0; {
		name, rest := names[0], names[1:]
		if name == "" || name == "." && len(rest) > 0 {
			names = rest
			continue
		}
		fd, err := unix.Openat(t.dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) && makes {
			if err := unix.Mkdirat(t.dir, name, 0o777); err != nil && !errors.Is(err, unix.EEXIST) {
				return t, err
			}
			continue // it is there now, or what another process put there
		}
		if errors.Is(err, unix.ENOENT) && len(rest) == 0 {
			t.name = name
			return t, nil
		}
		if err != nil {
			return t, err
		}
		link, err := t.visit(fd, name, len(rest) == 0)
		if err != nil || t.name != "" {
			unix.Close(fd)
			return t, err
		}
		if link == "" { // a folder
			unix.Close(t.dir)
			t.dir, names = fd, rest
			continue
		}
		unix.Close(fd)
		if links++; links > maxLinks {
			return t, unix.ELOOP
		}
		names = append(strings.Split(link, "/"), rest...)
		if filepath.IsAbs(link) {
			unix.Close(t.dir)
			if t.dir, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
				t.dir = -1
				return t, err
			}
		}
	}
	return t, unix.EISDIR
}

// visit looks at what fd is, which is called name in t's folder. It returns what a link
// says. It sets t's name when the path ends here.
func (t *target) visit(fd int, name string, last bool) (link string, err error) {
	var dir, st unix.Stat_t
	if err := errors.Join(unix.Fstat(t.dir, &dir), unix.Fstat(fd, &st)); err != nil {
		return "", err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "", nil
	case unix.S_IFLNK:
		if last && t.replaces {
			t.name = name
			return "", nil
		}
		if !trusted(st.Uid, dir.Uid) {
			return "", fmt.Errorf("%s is a link of user %d in a folder of user %d: it is not followed", name, st.Uid, dir.Uid)
		}
		var fs unix.Statfs_t
		if err := unix.Fstatfs(fd, &fs); err != nil {
			return "", err
		}
		if fs.Type == unix.PROC_SUPER_MAGIC && last {
			t.name, t.descriptor = name, true
			return "", nil
		}
		return readlink(fd)
	}
	if !last {
		return "", unix.ENOTDIR
	}
	if dir.Mode&(unix.S_IWOTH|unix.S_IWGRP) != 0 && !trusted(st.Uid, dir.Uid) {
		return "", fmt.Errorf("it belongs to user %d, in a folder where others than its owner can write", st.Uid)
	}
	t.name, t.old = name, &st
	return "", nil
}

// trusted says whether the caller follows what owner has put into a folder of folder.
func trusted(owner, folder uint32) bool {
	return owner == 0 || owner == folder || int(owner) == os.Geteuid()
}

func readlink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	return string(buf[:max(n, 0)]), err
}
