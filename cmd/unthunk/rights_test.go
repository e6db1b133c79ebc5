package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

const nobody = 65534

// limitedRun runs a command line with exactly some capabilities: as root whose others
// are gone, or as another user with ambient ones.
func limitedRun(t *testing.T, exe string, uid uint32, caps []int, args string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(exe, strings.Fields(args)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	run := cmd.Run
	if uid == 0 {
		run = func() error { return testutil.Capable(t, cmd.Run, caps...) }
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		for _, c := range caps {
			cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, uintptr(c))
		}
	}
	if err := run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// Each verb works with the capabilities that its help names, whoever runs it. Without
// one of them it ends with exit code 4 and says which it is.
func TestRights(t *testing.T) {
	testutil.Root(t)
	exe := build(t)
	const quick = " --rounds 2 --duration 1s"
	chain := []int{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN}
	symbols := append(chain, unix.CAP_SYSLOG)
	for _, test := range []struct {
		args    string
		caps    []int
		without map[int]string
	}{
		{"bench --bulk 64" + quick, chain, map[int]string{unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN"}},
		{"bench --bulk 64 --scenario redirect-xsk" + quick, append(chain, unix.CAP_NET_RAW, unix.CAP_IPC_LOCK), nil},
		{"bench --bulk 64 --prog ../../internal/bpf/sample/sample_bpfel.o:encap" + quick, symbols,
			map[int]string{unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN"}},
		{"bench --bulk 64 --prog ../../internal/bpf/sample/sample_bpfel.o:nat" + quick, chain, nil},
		{"run" + quick, symbols, nil},
		{"tax --pair ndo-xdp-xmit" + quick, symbols, map[int]string{unix.CAP_SYSLOG: "CAP_SYSLOG"}},
		{"profile --rounds 7 --duration 3s", symbols, map[int]string{unix.CAP_SYSLOG: "CAP_SYSLOG"}},
		{"xray", symbols, map[int]string{unix.CAP_SYS_ADMIN: "CAP_"}},
		{"check", []int{unix.CAP_SYSLOG, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}, nil},
		{"prog list", append(symbols, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_BPF, unix.CAP_PERFMON), nil},
		{"prog xray ../../internal/bpf/sample/sample_bpfel.o:twomaps", append(symbols, unix.CAP_BPF, unix.CAP_PERFMON),
			map[int]string{unix.CAP_SYSLOG: "CAP_SYSLOG"}},
		{"prog cost " + samples + ":encap --packets udp4" + quicklyReplayed, []int{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON},
			map[int]string{unix.CAP_BPF: "CAP_BPF", unix.CAP_PERFMON: "CAP_PERFMON", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN"}},
		{"report testdata/saved/bench.json --format csv", nil, nil},
		{"history testdata/saved", nil, nil},
	} {
		for _, uid := range []uint32{0, nobody} {
			code, _, stderr := limitedRun(t, exe, uid, test.caps, test.args)
			// A busy machine may leave no number: that is no matter of rights.
			busy := strings.Contains(stderr, "no row has a number") || strings.Contains(stderr, "no answer")
			if code != exitDone && !(code == exitFailed && busy) || strings.Contains(stderr, "CAP_") {
				t.Errorf("%s as %d: exit code %d: %s", test.args, uid, code, stderr)
			}
		}
		for c, want := range test.without {
			rest := slices.DeleteFunc(slices.Clone(test.caps), func(x int) bool { return x == c })
			code, stdout, stderr := limitedRun(t, exe, 0, rest, test.args)
			if code != exitMissing || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 || stdout != "" {
				t.Errorf("%s without %s: exit code %d: %s%s", test.args, want, code, stdout, stderr)
			}
		}
	}
}

// On devices no network namespace is made: less will do.
func TestRightsOnDevices(t *testing.T) {
	lab, _ := forwardLab(t)
	exe := build(t)
	xdp := []int{unix.CAP_NET_ADMIN, unix.CAP_BPF}
	for _, test := range []struct {
		args string
		caps []int
		code int
		want string
	}{
		{"forward --in in --out out --duration 1s", append(xdp, unix.CAP_NET_RAW, unix.CAP_IPC_LOCK), exitDone, ""},
		{"forward --in in --out out --duration 1s", xdp, exitMissing, "CAP_NET_RAW is missing"},
		{"forward --in in --out out --duration 1s --engine xdp --filter udp", append(xdp, unix.CAP_PERFMON), exitDone, ""},
		{"forward --in in --out out --duration 1s --engine xdp", xdp, exitMissing, "CAP_PERFMON is missing"},
		// An offset that the packet says takes computing with addresses.
		{"forward --in in --out out --duration 1s --filter tcp[13]&2!=0", append(xdp, unix.CAP_NET_RAW, unix.CAP_IPC_LOCK), exitMissing,
			"CAP_PERFMON is missing"},
		{"forward --in in --out out --duration 1s --engine xdp", xdp[:1], exitMissing, "CAP_BPF and CAP_PERFMON is missing"},
		// The pipe is root's: it is opened when the socket is.
		{"prog record --dev in --duration 100ms -o /dev/stdout", []int{unix.CAP_NET_RAW}, exitFailed, "save /dev/stdout"},
		{"prog record --dev in --duration 100ms -o /dev/stdout", nil, exitMissing, "root is missing"},
		{"prog watch dev:in --duration 1s", []int{unix.CAP_SYS_ADMIN, unix.CAP_SYSLOG, unix.CAP_BPF, unix.CAP_PERFMON}, exitFailed,
			"device in has no XDP program attached"},
		{"bench --in in --out out --duration 1s --rounds 1", append(xdp, unix.CAP_PERFMON), exitFailed, "no row has a number"},
	} {
		lab.Do(func() error {
			code, _, stderr := limitedRun(t, exe, nobody, test.caps, test.args)
			if code != test.code || !strings.Contains(stderr, test.want) || test.want == "" && stderr != "" {
				t.Errorf("%s with %v: exit code %d, want %d: %s", test.args, test.caps, code, test.code, stderr)
			}
			return nil
		})
	}
}

// Root has the rights to see all that check looks for: none of them is dropped.
func TestCheckSeesAll(t *testing.T) {
	testutil.Root(t)
	out, err := exec.Command(build(t), "check").Output()
	if err != nil || strings.Contains(string(out), "needs root") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A verb drops what it does not need, in all its threads and for what it starts, whatever
// the environment says, and also as root that may not change the bounding set.
func TestRightsDropped(t *testing.T) {
	testutil.Root(t)
	exe := build(t)
	keeps := []int{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_IPC_LOCK}
	t.Run("root", func(t *testing.T) {
		cmd := longBench(exe)
		expectRights(t, cmd, cmd.Start, keeps, keeps)
	})
	t.Run("root without CAP_SETPCAP", func(t *testing.T) {
		cmd, had := longBench(exe), append(slices.Clone(keeps), unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE)
		expectRights(t, cmd, func() error { return testutil.Capable(t, cmd.Start, had...) }, keeps, had)
	})
}

// longBench is a command that measures for minutes, in an environment that says its rights were cut.
func longBench(exe string) *exec.Cmd {
	cmd := exec.Command(exe, "bench", "--duration", "5m", "--rounds", "2")
	cmd.Env = append(os.Environ(), "UNTHUNK_LIMITED=1")
	return cmd
}

// expectRights starts cmd and looks at the capabilities of all its threads, once it measures.
func expectRights(t *testing.T, cmd *exec.Cmd, start func() error, keeps, bounding []int) {
	t.Helper()
	if err := start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	// It is measuring once a thread is in a namespace of its own.
	for start := time.Now(); len(holds(t, cmd.Process.Pid).namespaces) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("it does not measure")
		}
	}
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid)); err != nil || filepath.Base(got) != "unthunk" {
		t.Errorf("the process runs %s, %v", got, err)
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d threads, %v", len(files), err)
	}
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, line := range []string{
			fmt.Sprintf("CapPrm:\t%016x\n", bits(keeps)), fmt.Sprintf("CapEff:\t%016x\n", bits(keeps)),
			fmt.Sprintf("CapBnd:\t%016x\n", bits(bounding)), "NoNewPrivs:\t1\n",
		} {
			if !bytes.Contains(status, []byte(line)) {
				t.Errorf("%s has no line %q:\n%s", file, line, status)
			}
		}
	}
}

func bits(capabilities []int) (set uint64) {
	for _, c := range capabilities {
		set |= 1 << c
	}
	return set
}

// What Limit executes anew is the running program. Who may write its folder, and puts another program in its place
// meanwhile, does not have that one executed with capabilities.
func TestExchanged(t *testing.T) {
	testutil.Root(t)
	real := build(t)
	other := filepath.Join(filepath.Dir(real), "other")
	buildOther(t, other)
	// struct vfs_ns_cap_data, revision 2, effective: include/uapi/linux/capability.h.
	var caps [20]byte
	binary.LittleEndian.PutUint32(caps[0:], 0x02000001)
	binary.LittleEndian.PutUint32(caps[4:], 1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_NET_ADMIN)
	if err := unix.Setxattr(real, "security.capability", caps[:], 0); err != nil {
		t.Logf("set capabilities of a file: %v", err)
		testutil.Missing(t, "file capabilities")
	}
	quit, done := make(chan struct{}), make(chan struct{})
	defer func() { close(quit); <-done }()
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				if err := unix.Renameat2(unix.AT_FDCWD, real, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	ours := 0
	for range 200 {
		// A verb that keeps capabilities, and ends at once.
		cmd := exec.Command(real, "bench", "--scenario", "none")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != exitUsage && code != exitDone {
			t.Fatalf("%v: %s", err, out)
		}
		if set, found := strings.CutPrefix(string(out), "other "); !found {
			ours++
		} else if set != "0000000000000000" {
			t.Fatalf("another program was executed with capabilities %s", set)
		}
	}
	if ours == 0 {
		t.Error("the program itself was never executed")
	}
}

// buildOther builds a program that says which capabilities it has.
func buildOther(t *testing.T, exe string) {
	t.Helper()
	source := exe + ".go"
	err := os.WriteFile(source, []byte(`package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	b, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(b), "CapPrm:\t")
	set, _, _ := strings.Cut(rest, "\n")
	fmt.Print("other ", set)
}
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", exe, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A verb keeps no capability that its help, and so the table of docs/security.md, does not name.
func TestRightsNamed(t *testing.T) {
	t.Parallel()
	root := newRoot(std{out: io.Discard, err: io.Discard})
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			check(sub)
		}
		r := rightsOf(cmd)
		for _, c := range r.keeps {
			// CAP_SYS_ADMIN includes two others; lab says that it keeps what tax does.
			included := (c == unix.CAP_BPF || c == unix.CAP_PERFMON) && strings.Contains(r.about, "CAP_SYS_ADMIN")
			as := r.about
			if cmd.Name() == "lab" {
				as += "CAP_SYS_ADMIN CAP_NET_ADMIN CAP_SYSLOG CAP_BPF CAP_PERFMON"
			}
			if !included && !strings.Contains(as, c.String()) {
				t.Errorf("%s keeps %s: %s", cmd.CommandPath(), c, r.about)
			}
		}
	}
	check(root)
	for _, cmd := range root.Commands() {
		if cmd.Flags().Lookup("in") != nil {
			if err := cmd.Flags().Set("in", "eth0"); err != nil {
				t.Fatal(err)
			}
			check(cmd)
		}
	}
}
