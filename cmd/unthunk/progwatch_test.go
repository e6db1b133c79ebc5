package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/pprof/profile"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/internal/watch"
)

func TestProgWatchRefuses(t *testing.T) {
	testutil.Root(t)
	lb := object(t)
	refuses(t, "prog", []refused{
		{"no target", []string{"watch"}, exitUsage, "prog watch needs a target"},
		{"two targets", []string{"watch", "dev:lo", "dev:x"}, exitUsage, `unexpected argument "dev:x"`},
		{"an object", []string{"watch", lb}, exitUsage, "is no program at work"},
		{"no such file", []string{"watch", "no.o"}, exitUsage, "is no program at work"},
		{"no device", []string{"watch", "dev:no-such"}, exitFailed, "there is no device no-such"},
		{"no program", []string{"watch", "dev:lo"}, exitFailed, "device lo has no XDP program attached"},
		{"no id", []string{"watch", "id:4294967295"}, exitFailed, "there is no program with id 4294967295"},
		{"id 0", []string{"watch", "id:0"}, exitUsage, "an id is a number from 1 on"},
		{"too short", []string{"watch", "dev:lo", "--duration", "10ms"}, exitUsage, "10ms is too short"},
		{"rate", []string{"watch", "dev:lo", "--hz", "1000000"}, exitUsage, "1000000 Hz"},
		{"CPU", []string{"watch", "dev:lo", "--cpu", "9999"}, exitUsage, "CPU 9999"},
		{"top", []string{"watch", "dev:lo", "--top", "-1"}, exitUsage, "-1 functions"},
		{"metrics", []string{"watch", "dev:lo", "--metrics", "x"}, exitUsage, "--metrics x"},
		{"metrics config", []string{"watch", "dev:lo", "--metrics-config", "x"}, exitUsage, "needs --metrics"},
		{"save nowhere", []string{"watch", "dev:lo", "--save", filepath.Join(t.TempDir(), "no", "x")}, exitFailed, "no such file"},
		{"one file twice", []string{"watch", "dev:lo", "--save", "x", "--pprof", "x"}, exitUsage, "choose two names"},
	})
}

// watched is a program at work on a device "w0", flooded from its peer.
func watched(t *testing.T, name string, mode link.XDPAttachFlags) (lab *netlab.Namespace, p *ebpf.Program, attached link.Link) {
	t.Helper()
	lab = veth.Namespace(t)
	in, out := veth.Pair(t, lab, "w0", "w1")
	coll, p, err := sample.Load(name)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	err = lab.Do(func() (err error) {
		attached, err = link.AttachXDP(link.XDPOptions{Program: p, Interface: in.Index, Flags: mode})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { attached.Close() })
	t.Cleanup(flood.Start(t, lab, out.Index))
	return lab, p, attached
}

// watching starts a watch as a process of its own in a namespace.
func watching(t *testing.T, lab *netlab.Namespace, args string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd = exec.Command(build(t), strings.Fields("prog watch "+args)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := lab.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	return cmd, stdout, stderr
}

// watchEnd waits for a watch, and returns its exit code.
func watchEnd(t *testing.T, cmd *exec.Cmd, stderr *bytes.Buffer) int {
	t.Helper()
	err := cmd.Wait()
	if failed, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !failed.Exited()) {
		t.Fatal(err)
	}
	skipMissing(t, cmd.ProcessState.ExitCode(), stderr.String())
	return cmd.ProcessState.ExitCode()
}

// A watch says what is dropped and saves it, and what it says is of one mind.
func TestProgWatch(t *testing.T) {
	lab, p, _ := watched(t, "loop", link.XDPDriverMode)
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	dir := t.TempDir()
	for _, target := range []string{"dev:w0", fmt.Sprintf("id:%d", id)} {
		save, pprof := filepath.Join(dir, "w.json"), filepath.Join(dir, "w.pb.gz")
		cmd, stdout, stderr := watching(t, lab, fmt.Sprintf("%s --duration 3s --hz 2000 --json --stats --tracepoints --save %s --pprof %s",
			target, save, pprof))
		if code := watchEnd(t, cmd, stderr); code != exitDone || !strings.Contains(stderr.String(), "warning: run statistics cost each run") {
			t.Fatalf("%s: exit code %d: %s%s", target, code, stdout, stderr)
		}
		lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
		var second watchSecond
		if err := json.Unmarshal([]byte(lines[0]), &second); err != nil || second.Packets == 0 || second.Verdicts["drop"] != second.Packets {
			t.Errorf("%v, %+v", err, second)
		}
		saved, err := record.Load(save)
		if err != nil {
			t.Fatal(err)
		}
		doc := saved.ProgWatch()
		if doc == nil || doc.Program.ID != uint32(id) || doc.Program.Name != "loop" || doc.Program.Driver != "veth" {
			t.Fatalf("%+v", saved)
		}
		packets, drops := doc.Row("packets").Value.Median, doc.Row("verdict/drop").Value.Median
		program, path := doc.Row("program").Value.Median, doc.Row("path").Value.Median
		if packets <= 0 || packets != drops || program <= 0 || path < program || doc.Row("statistics").Value == nil {
			t.Errorf("%v packets, %v drops, program %v of %v", packets, drops, program, path)
		}
		if doc.Row("frames-per-xmit").Refused == "" {
			t.Error("bulks of a program that redirects nothing")
		}
		b, err := os.ReadFile(pprof)
		if err != nil {
			t.Fatal(err)
		}
		if prof, err := profile.ParseData(b); err != nil || len(prof.Sample) != len(doc.Stacks) {
			t.Errorf("%d stacks in pprof %v: %v", len(doc.Stacks), prof, err)
		}
		code, markdown, errs := unthunk(t, "report", save, "--format", "markdown")
		if code != exitDone || !strings.Contains(markdown, "A program at work") {
			t.Errorf("report: exit code %d: %s%s", code, markdown, errs)
		}
	}
}

// The lines fit into 80 columns, also where the network stack runs the program, whose verdicts
// nobody counts.
func TestProgWatchText(t *testing.T) {
	lab, _, _ := watched(t, "pass", link.XDPGenericMode)
	cmd, stdout, stderr := watching(t, lab, "dev:w0 --duration 2s")
	if code := watchEnd(t, cmd, stderr); code != exitDone {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	for _, line := range strings.Split(stdout.String(), "\n") {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{"pass id:", "on w0 (generic)", "Mpps", "verdict/drop: veth does not count it of generic XDP",
		"the network stack runs the program"} {
		if !strings.Contains(strings.Join(strings.Fields(stdout.String()), " "), want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
}

// A program that is replaced is followed; when it or its device goes, the watch says so and ends.
func TestProgWatchEnds(t *testing.T) {
	for _, test := range []struct {
		name, want string
		code       int
		change     func(*testing.T, *netlab.Namespace, link.Link) error
	}{
		{"replaced", "was replaced by leaf_drop id:", exitDone, func(t *testing.T, _ *netlab.Namespace, attached link.Link) error {
			coll, p, err := sample.Load("leaf_drop")
			if err != nil {
				return err
			}
			t.Cleanup(coll.Close)
			return attached.Update(p)
		}},
		{"detached", "is not on w0 any more", exitFailed, func(_ *testing.T, _ *netlab.Namespace, attached link.Link) error {
			return attached.Close()
		}},
		{"device", "w0 went away", exitFailed, func(t *testing.T, lab *netlab.Namespace, _ link.Link) error {
			network := handle(t, lab)
			l, err := network.LinkByName("w0")
			if err == nil {
				err = network.LinkDel(l)
			}
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			lab, _, attached := watched(t, "loop", link.XDPDriverMode)
			cmd, stdout, stderr := watching(t, lab, "dev:w0 --duration 6s")
			time.Sleep(3 * time.Second)
			if err := test.change(t, lab, attached); err != nil {
				t.Fatal(err)
			}
			code := watchEnd(t, cmd, stderr)
			// A busy machine may not have come to its first second, and warns.
			text := strings.Join(strings.Fields(stdout.String()+stderr.String()), " ")
			if code != test.code || !strings.Contains(text, test.want) || (code == exitFailed) != strings.Contains(text, "unthunk: ") {
				t.Errorf("exit code %d: %q is not in\n%s%s", code, test.want, stdout, stderr)
			}
		})
	}
}

// A watch that is killed leaves nothing, and holds neither the program that it watches nor the
// switch of run statistics.
func TestProgWatchKilled(t *testing.T) {
	lab, p, _ := watched(t, "loop", link.XDPDriverMode)
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	own, _ := info.ID()
	seen := 0
	for i := range 6 {
		cmd, _, _ := watching(t, lab, "dev:w0 --stats --tracepoints")
		time.Sleep(time.Duration(300+400*i) * time.Millisecond)
		h := holds(t, cmd.Process.Pid)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		h.progs = slices.DeleteFunc(h.progs, func(id uint32) bool { return id == uint32(own) })
		h.namespaces = nil // the test's own
		seen += len(h.progs)
		testutil.Eventually(t, "all that a killed watch held is gone", func() bool { return len(h.left()) == 0 })
	}
	if seen == 0 {
		t.Error("no kill came while anything was held")
	}
}

// The sums that are served are those of what was watched.
func TestProgWatchMetrics(t *testing.T) {
	lab, _, _ := watched(t, "loop", link.XDPDriverMode)
	values := make(map[string]float64)
	err := lab.Do(func() error {
		target, err := program.Parse("dev:w0")
		if err != nil {
			return err
		}
		w, err := watch.Open(t.Context(), watch.Plan{Target: target, Duration: 2 * time.Second, Rate: 2000})
		if err != nil {
			return err
		}
		registry := prometheus.NewPedanticRegistry()
		if err := registry.Register(newWatchCollector(w)); err != nil {
			return errors.Join(err, w.Close())
		}
		_, err = w.Run(t.Context(), func(watch.Second) {
			families, err := registry.Gather()
			if err != nil {
				t.Error(err)
			}
			clear(values)
			for _, f := range families {
				for _, m := range f.Metric {
					for _, l := range m.Label {
						if l.GetName() == "device" && l.GetValue() != "w0" || l.GetName() == "program" && l.GetValue() != "loop" {
							t.Errorf("%s: %v", f.GetName(), m.Label)
						}
					}
					values[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		})
		return errors.Join(err, w.Close())
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	for _, name := range []string{
		"packets_total", "verdict_packets_total", "path_seconds_total", "cost_seconds_total", "samples_total", "up",
	} {
		if values["unthunk_watch_"+name] <= 0 {
			t.Errorf("%s is %v", name, values["unthunk_watch_"+name])
		}
	}
}

// A signal ends a watch, within a second; what it saw is printed and saved. A watch of a fixed
// length was stopped then. Metrics are served meanwhile.
func TestProgWatchSignal(t *testing.T) {
	lab, _, _ := watched(t, "loop", link.XDPDriverMode)
	network := handle(t, lab)
	lo, err := network.LinkByName("lo")
	if err == nil {
		err = network.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
	}{{"", exitDone}, {"--duration 1m", exitFailed}} {
		save := filepath.Join(t.TempDir(), "w.json")
		cmd, stdout, stderr := watching(t, lab, "dev:w0 --hz 500 --metrics 127.0.0.1:9105 --save "+save+" "+test.args)
		answer := ""
		testutil.Eventually(t, "a second is watched and served", func() bool {
			answer = scraped(t, lab, "127.0.0.1:9105")
			return strings.Contains(answer, `unthunk_watch_verdict_packets_total{device="w0",program="loop",verdict="drop"} `)
		})
		if !strings.Contains(answer, `unthunk_watch_up{device="w0",program="loop"} 1`) {
			t.Errorf("%s", answer)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		code := watchEnd(t, cmd, stderr)
		if took := time.Since(begun); code != test.code || took > 3*time.Second || !strings.Contains(stdout.String(), "packets a second") {
			t.Errorf("%q: exit code %d after %v: %s%s", test.args, code, took, stdout, stderr)
		}
		if saved, err := record.Load(save); err != nil || saved.Incomplete != (test.args != "") {
			t.Errorf("%q: %+v, %v", test.args, saved, err)
		}
	}
}

// scraped is what a server in a namespace answers, "" while there is none.
func scraped(t *testing.T, lab *netlab.Namespace, address string) (text string) {
	t.Helper()
	_ = lab.Do(func() error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(conn, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		b, err := io.ReadAll(conn)
		text = string(b)
		return err
	})
	return text
}

// failsOnce fails at the first write.
type failsOnce struct{ failed bool }

func (f *failsOnce) Write(p []byte) (int, error) {
	if f.failed {
		return len(p), nil
	}
	f.failed = true
	return 0, os.ErrClosed
}

// A line that could not be written is an error, whatever comes after it.
func TestWatchWriterError(t *testing.T) {
	t.Parallel()
	w := watchWriter{s: std{out: &failsOnce{}}, lines: 1} // without the head
	if w.write(watch.Second{Length: time.Second, Event: "the program was replaced"}); w.err == nil {
		t.Error("the error of the line is lost")
	}
}

// whenWritten does something at each write.
type whenWritten func()

func (w whenWritten) Write(b []byte) (int, error) {
	w()
	return len(b), nil
}

// Files are there before anything is shown: nobody may read what is.
func TestProgWatchSavesFirst(t *testing.T) {
	t.Parallel()
	for _, asJSON := range []bool{false, true} {
		dir := t.TempDir()
		f := progWatchFlags{pprof: filepath.Join(dir, "p"), output: outputFlags{json: asJSON, save: filepath.Join(dir, "s")}}
		shown := 0
		out := whenWritten(func() {
			shown++
			for _, file := range []string{f.pprof, f.output.save} {
				if _, err := os.Stat(file); err != nil {
					t.Error(err)
				}
			}
		})
		if err := f.publish(std{out: out}, new(record.ProgWatch)); err != nil || shown == 0 {
			t.Errorf("written %d times: %v", shown, err)
		}
	}
}
