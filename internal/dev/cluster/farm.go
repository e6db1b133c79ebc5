package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// scripts is the folder of the scripts that make machines and end them.
const scripts = "../../../scripts"

// Farm is machines on one network, 10.77.0.0/24. The first one, control, has the switch.
type Farm struct {
	Dir string // has a folder for each machine, and goes with the farm

	debian   string   // the tar that machines are made from
	group    string   // of control groups, below ours
	groups   []string // the folders of that
	machines map[string]*Machine
	sweeper  *exec.Cmd
	hold     io.Closer
}

// NewFarm makes a farm without machines. What it leaves is removed by [Farm.Close], and by a process of its own when this one ends
// without having called it. Needs root.
func NewFarm(cache string) (*Farm, error) {
	debian, err := debian(cache)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/var/tmp", "unthunk-cluster-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	f := &Farm{Dir: dir, debian: debian, group: filepath.Base(dir), machines: make(map[string]*Machine)}
	if err := f.watch(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return f, nil
}

// watch starts the process that sweeps when its standard input ends: when the farm closes, or when this process is killed.
func (f *Farm) watch() error {
	groups, err := ownGroups(f.group)
	if err != nil {
		return err
	}
	f.groups = groups
	sweep, err := filepath.Abs(scripts + "/sweep")
	if err != nil {
		return fmt.Errorf("find scripts: %w", err)
	}
	const wait = `cat >/dev/null; dir=$1 sweep=$2; shift 2; "$sweep" "$@"; rm -rf --one-file-system "$dir"`
	f.sweeper = exec.Command("bash", append([]string{"-euc", wait, "sweeper", f.Dir, sweep}, f.groups...)...)
	f.sweeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what interrupts this process does not end it
	f.sweeper.Stderr = new(bytes.Buffer)
	if f.hold, err = f.sweeper.StdinPipe(); err != nil {
		return fmt.Errorf("start sweeper: %w", err)
	}
	if err := f.sweeper.Start(); err != nil {
		return fmt.Errorf("start sweeper: %w", err)
	}
	return nil
}

// ownGroups are the folders of a control group below ours, one a hierarchy.
func ownGroups(name string) (groups []string, err error) {
	out, err := exec.Command(scripts + "/groups").Output()
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	for _, group := range strings.Fields(string(out)) {
		groups = append(groups, filepath.Join(group, name))
	}
	return groups, nil
}

// Close ends all machines and removes what they left.
func (f *Farm) Close() error {
	if err := f.hold.Close(); err != nil {
		return fmt.Errorf("end farm: %w", err)
	}
	if err := f.sweeper.Wait(); err != nil {
		return fmt.Errorf("sweep: %w\n%s", err, f.sweeper.Stderr)
	}
	for _, m := range f.machines {
		if m.init != nil {
			_ = m.init.Wait() // which was killed
		}
	}
	return nil
}

// Remains is what there is on this machine of a farm, by its folder: that, control groups, mounts and processes. It is empty when
// the farm is closed, and some seconds after its process was killed.
func Remains(dir string) (left []string, err error) {
	groups, err := ownGroups(filepath.Base(dir))
	if err != nil {
		return nil, err
	}
	for _, file := range append(groups, dir) {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			left = append(left, file)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	if bytes.Contains(mounts, []byte(dir)) {
		left = append(left, "a mount")
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, process := range processes {
		for _, name := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(filepath.Join(process, name))
			if err == nil && bytes.Contains(text, []byte(dir)) { // an error: it has ended
				left = append(left, process)
				break
			}
		}
	}
	return left, nil
}

// Logs are the last lines of what each daemon of each machine printed.
func (f *Farm) Logs() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.machines)) {
		files, err := filepath.Glob(filepath.Join(f.Dir, name, "*.log"))
		if err != nil {
			continue
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			fmt.Fprintf(&b, "== %s %s\n%s\n", name, filepath.Base(file), strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	}
	return b.String()
}
