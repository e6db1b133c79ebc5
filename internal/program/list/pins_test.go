package list

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

// Pinned programs and links are found at their paths; maps and other files are passed over,
// and all stays pinned.
func TestReadPins(t *testing.T) {
	testutil.Root(t)
	p := load(t, "pinned", 0)
	again, err := p.Clone() // a second pin of one handle would move the first
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	tails := newMap(t, ebpf.MapSpec{Name: "tails", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	looker, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer looker.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "xdp_exception", Program: looker})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	mounts := fmt.Sprintf("45 44 0:39 / %s rw - bpf bpf rw\n46 44 0:40 / /no-such-folder rw - bpf bpf rw\n", dir)
	var got pins
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks: thread and mount end with the goroutine
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("bpf", dir, "bpf", 0, ""))
		}
		if err == nil {
			err = errors.Join(os.Mkdir(in, 0o700), p.Pin(filepath.Join(dir, "program")), again.Pin(filepath.Join(in, "again")),
				tails.Pin(filepath.Join(dir, "map")), l.Pin(filepath.Join(in, "link")))
		}
		if err == nil {
			got, err = readPins(t.Context(), mounts)
		}
		if err == nil {
			files, errRead := os.ReadDir(in)
			if err = errRead; len(files) != 2 {
				err = errors.Join(err, fmt.Errorf("%d files are left, of 2", len(files)))
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	programs, links := got.programs[idOf(t, p)], got.links[uint32(info.ID)]
	if !slices.Equal(programs, []string{filepath.Join(in, "again"), filepath.Join(dir, "program")}) ||
		!slices.Equal(links, []string{filepath.Join(in, "link")}) || len(got.programs) != 1 || len(got.links) != 1 {
		t.Errorf("%+v", got)
	}
}
