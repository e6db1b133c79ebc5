package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// A capture is opened when all else was found: an old one is not lost to a typing error.
func TestPcapIsKept(t *testing.T) {
	testutil.Root(t)
	file := filepath.Join(t.TempDir(), "old.pcap")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := unthunk(t, "forward", "--in", "lo", "--out", "no-such-dev", "--pcap", file)
	if code != exitFailed || !strings.Contains(stderr, "no-such-dev") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "old" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

// Root does not write a report through a link that another user put into a folder where
// everybody can write.
func TestForeignLink(t *testing.T) {
	testutil.Root(t)
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	link := filepath.Join(dir, "run.html")
	for _, err := range []error{
		os.WriteFile(victim, []byte("secret"), 0o600), os.Chmod(dir, os.ModeSticky|0o777),
		os.Symlink(victim, link), os.Lchown(link, 65534, 65534),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	code, _, stderr := unthunk(t, "report", "testdata/saved/bench.json", "-o", link)
	if code != exitFailed || !strings.Contains(stderr, "a link of user 65534") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "secret" {
		t.Errorf("the victim holds %q, %v", b, err)
	}
}

// outputs are the command lines that write a file, without its name.
func outputs() []string {
	const short = " --rounds 7 --duration 3s"
	return []string{
		"report testdata/saved/bench.json -o", "report testdata/saved/profile.json --format svg -o",
		"compare testdata/saved/bench.json testdata/saved/bench2.json --save",
		"bench --bulk 64 --rounds 2 --duration 1s --save",
		"profile" + short + " --svg", "profile" + short + " --pprof", "profile" + short + " --folded",
		"forward --in in --out out --duration 1s --pcap",
		"prog list --save", "prog record --dev in --duration 100ms -o",
	}
}

// Each file that a flag names keeps the mode and the owner of the file that was there. A
// link of another user in a sticky folder is refused, before anything else is done.
func TestOutputs(t *testing.T) {
	lab, _ := forwardLab(t)
	exe := build(t)
	write := func(args, file string) (e ended) {
		lab.Do(func() error {
			e = exits(t, exec.Command(exe, append(strings.Fields(args), file)...), nil)
			return nil
		})
		return e
	}
	for _, args := range outputs() {
		dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
		link, old, fresh := filepath.Join(dir, "link"), filepath.Join(t.TempDir(), "old"), filepath.Join(t.TempDir(), "new")
		for _, err := range []error{
			os.WriteFile(victim, []byte("secret"), 0o600),
			os.WriteFile(old, []byte("old"), 0o640), os.Chown(old, nobody, nobody),
			os.Chmod(dir, os.ModeSticky|0o777), os.Symlink(victim, link), os.Lchown(link, nobody, nobody),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if e := write(args, link); !e.refused(exitFailed, "a link of user 65534") {
			t.Errorf("%s: through a link: %+v", args, e)
		}
		if b, err := os.ReadFile(victim); err != nil || string(b) != "secret" {
			t.Errorf("%s: the victim holds %q, %v", args, b, err)
		}
		for file, want := range map[string]struct {
			mode os.FileMode
			uid  uint32
		}{old: {0o640, nobody}, fresh: {newMode(args), 0}} {
			e := write(args, file)
			info, err := os.Stat(file)
			if e.code == exitUsage || e.code == exitMissing || err != nil {
				t.Errorf("%s: %+v, %v", args, e, err)
				continue
			}
			if uid := info.Sys().(*syscall.Stat_t).Uid; info.Mode() != want.mode || uid != want.uid || info.Size() == 3 {
				t.Errorf("%s %s: %v of user %d, %d bytes, want %v", args, file, info.Mode(), uid, info.Size(), want)
			}
		}
	}
}

// newMode is the mode of a file that was not there: a capture is for its owner alone.
func newMode(args string) os.FileMode {
	if strings.HasSuffix(args, "--pcap") || strings.HasPrefix(args, "prog record") {
		return 0o600
	}
	return 0o644
}

// A file is not written over what the same command reads, nor twice.
func TestOutputIsInput(t *testing.T) {
	exe := build(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "in.json")
	saved, err := os.ReadFile("testdata/saved/bench.json")
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.WriteFile(file, saved, 0o600), os.Link(file, filepath.Join(dir, "hard")),
		os.Symlink(file, filepath.Join(dir, "soft")))
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"report in.json -o in.json", "report in.json -o ./hard", "report in.json -o soft",
		"report in.json --format csv -o in.json", "compare in.json in.json --save in.json", "history . --save in.json",
		"forward --in a --out b --bpf in.json --pcap in.json", "prog list --prices in.json --save in.json",
		"profile --svg x --pprof x", "profile --folded x --save x",
	} {
		cmd := exec.Command(exe, strings.Fields(args)...)
		cmd.Dir = dir
		if e := exits(t, cmd, nil); e.code != exitUsage || strings.Count(e.stderr, "\n") != 1 {
			t.Errorf("%s: %+v", args, e)
		}
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, saved) {
		t.Errorf("the input holds %d bytes, held %d: %v", len(b), len(saved), err)
	}
}
