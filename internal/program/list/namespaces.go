package list

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/record"
)

// namespace is a network namespace that was found.
type namespace struct {
	inode uint64
	// name as in [record.Namespace]; rank says how good it is, the lower the better.
	name string
	rank int
	// paths lead to it; a process may end, so there are several, maxPaths at most.
	paths []string
}

const maxPaths = 8

// Ranks of names of namespaces.
const (
	rankOwn = iota
	rankNamed
	rankMount
	rankProcess
)

// namespaces are the network namespaces of a machine by inode.
type namespaces map[uint64]*namespace

// add notes that path leads to a namespace.
func (all namespaces) add(inode uint64, path, name string, rank int) {
	n := all[inode]
	if n == nil {
		n = &namespace{inode: inode, name: name, rank: rank}
		all[inode] = n
	}
	if rank < n.rank {
		n.name, n.rank = name, rank
	}
	if len(n.paths) < maxPaths {
		n.paths = append(n.paths, path)
	}
}

// sorted are the namespaces, the own one first, then by name.
func (all namespaces) sorted() []*namespace {
	var list []*namespace
	for _, n := range all {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b *namespace) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.name, b.name), cmp.Compare(a.inode, b.inode))
	})
	return list
}

// ownNamespace is where the namespace of this process's main thread is.
const ownNamespace = "/proc/self/ns/net"

// addOwn adds the namespace of this process.
func (all namespaces) addOwn() error {
	inode, err := inodeOf(ownNamespace)
	if err != nil {
		return fmt.Errorf("find own network namespace: %w", err)
	}
	all.add(inode, ownNamespace, "", rankOwn)
	return nil
}

// inodeOf is the inode of a network namespace.
func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// namedFolder is where ip netns keeps its namespaces.
const namedFolder = "/run/netns"

// addNamed adds the namespaces of /run/netns. What lies there and is no namespace is left
// out: a file that a reboot or an error left.
func (all namespaces) addNamed(folder string) {
	files, err := os.ReadDir(folder)
	if err != nil {
		return // most machines have none
	}
	for _, file := range files {
		path := filepath.Join(folder, file.Name())
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil || st.Type != unix.NSFS_MAGIC {
			continue
		}
		if inode, err := inodeOf(path); err == nil {
			all.add(inode, path, file.Name(), rankNamed)
		}
	}
}

// addMounted adds the namespaces that are mounted somewhere, as those of containers in
// /run/docker/netns, by a table of mounts.
func (all namespaces) addMounted(mountinfo string) {
	for inode, path := range mountedNamespaces(mountinfo) {
		if got, err := inodeOf(path); err == nil && got == inode {
			all.add(inode, path, path, rankMount)
		}
	}
}

// maxMounts bounds how many namespaces a table of mounts may have.
const maxMounts = 10_000

// mountedNamespaces reads /proc/self/mountinfo: the mounts of network namespaces, by inode.
// A line is "36 35 0:4 net:[4026532281] /run/docker/netns/x rw shared:7 - nsfs nsfs rw"
// (proc_pid_mountinfo(5)).
func mountedNamespaces(mountinfo string) map[uint64]string {
	found := make(map[uint64]string)
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 || len(found) == maxMounts {
			continue
		}
		if inode, ok := namespaceInode(fields[3]); ok {
			found[inode] = unescaped(fields[4])
		}
	}
	return found
}

// namespaceInode is the inode in the kernel's name of a network namespace: "net:[4026532281]".
func namespaceInode(text string) (uint64, bool) {
	digits, ok := strings.CutPrefix(text, "net:[")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(digits, "]"), 10, 64)
	return inode, err == nil
}

// unescaped is a path of mountinfo, in which blanks are "\040".
func unescaped(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if n, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// visit runs f in each namespace, on one thread that enters one after the other and returns
// to where it was. f gets nil in a namespace that it is in, else the reason why not. A
// namespace that is gone is left out. Requires CAP_SYS_ADMIN for all but the own one.
func visit(ctx context.Context, list []*namespace, f func(n *namespace, refused error)) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer home.Close()
		err = visitEach(ctx, list, f)
		if errBack := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); errBack == nil || errors.Is(errBack, unix.EPERM) {
			// Who may not enter its own has not left it.
			runtime.UnlockOSThread()
		} // else the thread ends with this goroutine
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(leaving): // a path may lead into a file system that does not answer
		return ctx.Err()
	}
}

// leaving is how long a thread has to come back from a namespace when ctx has ended.
const leaving = time.Second / 4

func visitEach(ctx context.Context, list []*namespace, f func(*namespace, error)) error {
	for _, n := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n.rank == rankOwn { // the first: the thread is in it
			f(n, nil)
			continue
		}
		err := enter(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		f(n, err)
	}
	return nil
}

// enter moves this thread into a namespace, by the first of its paths that still leads
// there. It wraps [fs.ErrNotExist] where none does.
func enter(n *namespace) error {
	err := error(fs.ErrNotExist)
	for _, path := range n.paths {
		fd, errOpen := open(path, n.inode)
		if errOpen != nil {
			if !errors.Is(errOpen, fs.ErrNotExist) && !errors.Is(errOpen, unix.ESRCH) {
				err = errOpen
			}
			continue
		}
		errSet := unix.Setns(fd, unix.CLONE_NEWNET)
		unix.Close(fd)
		if errSet == nil {
			return nil
		}
		err = errSet
	}
	return err
}

// open opens a namespace by a path that leads to it, and [fs.ErrNotExist] where it leads elsewhere now.
//
// The path may be that of an open file of another process, which can put any file in its place, also one
// that it may not open itself: the file is looked at without opening it (O_PATH), as to open a
// device does something and to open a pipe waits.
func open(path string, inode uint64) (fd int, err error) {
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	var system unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(at, &system), unix.Fstat(at, &st)); err != nil {
		return -1, err
	}
	if system.Type != unix.NSFS_MAGIC || st.Ino != inode {
		return -1, fs.ErrNotExist
	}
	return unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// row is what is said of a namespace.
func (n *namespace) row(devices int, refused error) record.Namespace {
	r := record.Namespace{Inode: n.inode, Name: clean(n.name), Devices: devices}
	if refused != nil {
		r.Unseen = clean(refused.Error())
	}
	return r
}
