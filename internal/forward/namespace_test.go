package forward

import (
	"os"
	"sync"
	"testing"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
)

// What runs in the namespace of a forwarder moves no thread there for good, the main one neither: of so many at once it
// is one.
func TestHome(t *testing.T) {
	testutil.Root(t)
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	var h *home
	if err := lab.Do(func() (err error) { h, err = openHome(); return err }); err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	const n = 30
	var inside, all sync.WaitGroup
	inside.Add(n)
	for range n {
		all.Go(func() {
			err := h.do(func() error {
				if there, err := os.Readlink(threadNamespace); err != nil || there == before {
					t.Errorf("it runs in %s, %v", there, err)
				}
				inside.Done()
				inside.Wait()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != before {
		t.Errorf("the main thread is in %s, %v; before it was in %s", after, err, before)
	}
}
