package main

import (
	"os"
	"path/filepath"
	"strings"
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
