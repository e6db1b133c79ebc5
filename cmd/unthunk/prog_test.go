package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

func TestProgRefuses(t *testing.T) {
	refuses(t, "prog", []refused{
		{"no verb", nil, exitUsage, "prog needs a verb: see unthunk prog --help"},
		{"a verb that is not there", []string{"lst"}, exitUsage, `there is no verb "prog lst": did you mean prog list?`},
		{"nothing near", []string{"quux"}, exitUsage, `there is no verb "prog quux": see unthunk prog --help`},
		{"a flag", []string{"list", "--pricse", "x"}, exitUsage, "did you mean --prices?"},
		{"an argument", []string{"list", "eth0"}, exitUsage, "eth0"},
		{"prices that are not there", []string{"list", "--prices", "no-such.json"}, exitFailed, "no-such.json"},
		{"prices without prices", []string{"list", "--prices", "testdata/saved/bench.json"}, exitUsage, "has no prices"},
		{"over its prices", []string{"list", "--prices", "testdata/saved/tax.json", "--save", "testdata/saved/tax.json"}, exitUsage,
			"would overwrite"},
		{"record of nothing", []string{"record", "-o", "x.pcap"}, exitUsage, "Give --dev"},
		{"record to nowhere", []string{"record", "--dev", "lo"}, exitUsage, "Give -o FILE"},
		{"record of no device", []string{"record", "--dev", "no-such-dev", "-o", filepath.Join(t.TempDir(), "x")}, exitFailed,
			"there is no device no-such-dev"},
		{"record too short", []string{"record", "--dev", "lo", "-o", "x", "--duration", "1ms"}, exitUsage, "must be 10ms or more"},
		{"record by no filter", []string{"record", "--dev", "lo", "-o", "x", "--filter", "udp prt"}, exitUsage, "--filter"},
		{"record fewer than none", []string{"record", "--dev", "lo", "-o", "x", "--packets", "-1"}, exitUsage, "is negative"},
		{"record no header", []string{"record", "--dev", "lo", "-o", "x", "--snaplen", "3"}, exitUsage, "14 bytes"},
		{"record into a folder", []string{"record", "--dev", "lo", "-o", t.TempDir()}, exitFailed, "it is a directory"},
	})
}

// The record of prog list is one that report reads, and says what the text says.
func TestProgList(t *testing.T) {
	testutil.Root(t)
	file := filepath.Join(t.TempDir(), "list.json")
	code, stdout, stderr := unthunk(t, "prog", "list", "--json", "--save", file, "--prices", "testdata/saved/tax.json")
	if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var doc record.ProgramList
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		t.Fatal(err)
	}
	saved, err := record.Load(file)
	if err != nil || saved.Programs() == nil || saved.Kind != "prog-list" || len(saved.Programs().Namespaces) == 0 {
		t.Fatalf("%+v, %v", saved, err)
	}
	if !slices.ContainsFunc(doc.Warnings, func(w record.Warning) bool { return strings.Contains(w.Text, "of another CPU") }) {
		t.Errorf("prices of another machine: %+v", doc.Warnings)
	}
	code, stdout, stderr = unthunk(t, "report", file, "--format", "markdown")
	if code != exitDone || !strings.Contains(stdout, "on devices, of") {
		t.Errorf("report: exit code %d: %s%s", code, stdout, stderr)
	}
	if code, _, stderr = unthunk(t, "compare", file, file); code != exitFailed || strings.Count(stderr, "\n") != 1 {
		t.Errorf("compare: exit code %d: %s", code, stderr)
	}
}

// Root sees also what a process of another user has open, though its folder of open files is for that user alone.
func TestProgListHolders(t *testing.T) {
	lab := veth.Namespace(t)
	a, _ := veth.Pair(t, lab, "held0", "held1")
	program := veth.Program(t, asm.Mov.Imm(asm.R0, 2), asm.Return())
	if err := a.Attach(program, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(uintptr(program.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "program")
	defer file.Close()
	holder := exec.Command("sleep", "60")
	holder.ExtraFiles = []*os.File{file}
	holder.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: unix.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	out, err := exec.Command(build(t), "prog", "list", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var doc record.ProgramList
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(doc.Rows, func(p record.ProgramRow) bool {
		return slices.Contains(p.Holders, record.Process{PID: holder.Process.Pid, Name: "sleep"})
	}) {
		t.Errorf("process %d holds none of %+v; unseen: %q", holder.Process.Pid, doc.Rows, doc.Unseen)
	}
}

// A signal ends prog list before it has written anything, and prog record with what it has.
func TestProgInterrupted(t *testing.T) {
	testutil.Root(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := run(ctx, []string{"prog", "list"}, strings.NewReader(""), &out, &errs)
	if code != exitFailed || out.Len() > 0 || errs.String() != "unthunk: "+errInterrupted.Error()+"\n" {
		t.Errorf("exit code %d: %s%s", code, &out, &errs)
	}
}

// A run names the programs that devices run, also one of a namespace that it does not look
// into: its link tells.
func TestRunNamesPrograms(t *testing.T) {
	lab := veth.Namespace(t)
	a, _ := veth.Pair(t, lab, "run0", "run1")
	pass := veth.Program(t, asm.Mov.Imm(asm.R0, 2), asm.Return())
	if err := a.Attach(pass, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	info, err := pass.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	doc := record.New[record.BenchRow]("run", host.Fingerprint{})
	addPrograms(t.Context(), doc)
	if !slices.ContainsFunc(doc.Programs, func(p record.ProgramRow) bool { return p.ID == uint32(id) }) || len(doc.Warnings) > 0 {
		t.Errorf("%+v, %+v", doc.Programs, doc.Warnings)
	}
}

// A sample has what the device received, is for its owner alone, and says what it lacks. A
// second one takes its place.
func TestProgRecord(t *testing.T) {
	lab := veth.Namespace(t)
	a, b := veth.Pair(t, lab, "cap0", "cap1")
	file := filepath.Join(t.TempDir(), "p.pcap")
	command := "prog record --dev cap1 -o " + file + " --duration 300ms"
	code, stdout, stderr := inLab(t, lab, command)
	if code != exitFailed || !strings.Contains(stderr, "no packet came in") {
		t.Errorf("of a silent device: exit code %d: %s%s", code, stdout, stderr)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 || info.Size() != 24 {
		t.Errorf("%+v, %v", info, err)
	}
	pass := veth.Program(t, asm.Mov.Imm(asm.R0, 2), asm.Return())
	if err := b.Attach(pass, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	stop := flood.Start(t, lab, a.Index)
	defer stop()
	code, stdout, stderr = inLab(t, lab, command+" --packets 100")
	if code != exitDone || !strings.HasPrefix(stdout, "100 packets, 6000 bytes, of cap1 in ") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	for _, want := range []string{"warning: cap1 has an XDP program (id:", ", native): what it drops", "warning: it ended after 100 packets"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q lacks %q", stderr, want)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Size() != 24+100*(16+60) {
		t.Errorf("%+v, %v", info, err)
	}
	code, stdout, stderr = inLab(t, lab, command+" --filter tcp --json")
	var sample progSample
	if err := json.Unmarshal([]byte(stdout), &sample); err != nil || code != exitFailed || sample.Packets != 0 || sample.Unmatched == 0 {
		t.Errorf("exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
}
