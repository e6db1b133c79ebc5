package lab

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// A kernel with what unthunk needs and nothing else counts, and does so alike by whichever name:
// its tree, its bzImage and its vmlinux, which boots another way.
func TestSmallKernel(t *testing.T) {
	tree := os.Getenv("UNTHUNK_TREE")
	if tree == "" {
		testutil.Missing(t, "a small kernel's tree (UNTHUNK_TREE, of scripts/small-kernel)")
	}
	names := []string{tree, filepath.Join(tree, "arch/x86/boot/bzImage"), filepath.Join(tree, "vmlinux")}
	images := make(map[string]bool)
	for _, name := range names {
		k, err := guest.Resolve(t.Context(), t.TempDir(), name)
		if err != nil {
			t.Fatal(err)
		}
		images[k.Image] = true
	}
	if len(images) != 2 {
		t.Errorf("images %v: the vmlinux is not booted itself", images)
	}
	cells, err := Run(t.Context(), Plan{Kernels: names, Bulks: []int{1, 16}}, unthunk(t), nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cells {
		if c.Err != nil {
			t.Fatalf("%s: %v; console:\n%s", c.Name(), c.Err, c.Console)
		}
		for i, b := range c.Bulks {
			first := cells[0].Bulks[i]
			if *b.Instructions != *first.Instructions || len(b.Sites) != len(first.Sites) || len(b.Sites) == 0 {
				t.Errorf("%s at bulk %d: %v instructions and %d branches, want %v and %d", c.Name(), b.Bulk, *b.Instructions, len(b.Sites),
					*first.Instructions, len(first.Sites))
			}
		}
	}
}
