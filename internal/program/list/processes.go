package list

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// held is what processes have open of BPF.
type held struct {
	programs, links map[uint32][]record.Process
	// statistics are those that switched statistics on (BPF_ENABLE_STATS).
	statistics []record.Process
	// refused is how many processes did not show their files.
	refused int
}

// maxHolders bounds the processes that are named for one program.
const maxHolders = 16

// processes reads what processes have open, and the network namespaces they are in, which it
// adds to all. Processes that end meanwhile are left out. Others' processes need
// CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
func processes(ctx context.Context, all namespaces) (*held, error) {
	h := &held{programs: make(map[uint32][]record.Process), links: make(map[uint32][]record.Process)}
	folders, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, folder := range folders {
		pid, err := strconv.Atoi(folder.Name())
		if err != nil {
			continue
		}
		err = h.process(ctx, pid, all)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, fs.ErrPermission):
			h.refused++
		}
	}
	return h, nil
}

// process reads one process: of each of its threads the namespace, and its open files. There may be a million of each: it ends
// with ctx.
func (h *held) process(ctx context.Context, pid int, all namespaces) error {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	who := record.Process{PID: pid, Name: processName(dir)}
	threads, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil {
		return err
	}
	name := fmt.Sprintf("process %d (%s)", pid, who.Name)
	for _, thread := range threads {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, "task", thread.Name(), "ns/net")
		inode, err := inodeOf(path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return err
		case err == nil:
			all.add(inode, path, name, rankProcess)
		}
	}
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, "fd", file.Name())
		to, err := os.Readlink(path)
		if err != nil {
			continue
		}
		if inode, ok := namespaceInode(to); ok {
			all.add(inode, path, name, rankProcess)
			continue
		}
		h.file(to, filepath.Join(dir, "fdinfo", file.Name()), who)
	}
	return nil
}

// file notes an open file by what its link says.
func (h *held) file(to, info string, who record.Process) {
	switch to {
	case "anon_inode:bpf-stats":
		h.statistics = append(h.statistics, who)
	case "anon_inode:bpf-prog":
		hold(h.programs, info, "prog_id", who)
	case "anon_inode:bpf_link", "anon_inode:bpf-link":
		hold(h.links, info, "link_id", who)
	}
}

// hold notes who has open what a file of fdinfo names in a field.
func hold(holders map[uint32][]record.Process, info, field string, who record.Process) {
	b, err := os.ReadFile(info)
	if err != nil {
		return // closed since
	}
	id, ok := fdinfoField(string(b), field)
	if !ok || slices.Contains(holders[id], who) || len(holders[id]) == maxHolders {
		return
	}
	holders[id] = append(holders[id], who)
}

// fdinfoField is a number of a file of /proc/PID/fdinfo: "prog_id:\t241".
func fdinfoField(text, name string) (uint32, bool) {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && key == name {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			return uint32(n), err == nil
		}
	}
	return 0, false
}

// processName is the name of a process; "?" where it has ended.
func processName(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return "?"
	}
	return cmp.Or(clean(strings.TrimSpace(string(b))), "?")
}

// clean is a name that others chose, as a record may have it: what a terminal does not show
// as it is becomes a question mark.
func clean(name string) string { return record.Text(name, 250, '?') }
