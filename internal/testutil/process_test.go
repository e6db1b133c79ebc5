package testutil

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

// Children are found whichever thread started them, also while threads come and go.
func TestChildren(t *testing.T) {
	if got := Children(t, os.Getpid()); len(got) > 0 {
		t.Fatalf("children %v before", got)
	}
	cmd := exec.Command("/bin/cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "one child", func() bool { return slices.Equal(Children(t, os.Getpid()), []int{cmd.Process.Pid}) })
	in.Close()
	cmd.Wait()
	if got := Children(t, os.Getpid()); len(got) > 0 {
		t.Errorf("children %v after", got)
	}
}
