package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/verify"
)

// worst are the inputs that cost verbs the most, of what reviews and tests found: each is at the limits of its kind, or
// has 100 MB.
type worst struct{ dir string }

func (w worst) path(name string) string { return filepath.Join(w.dir, name) }

// write makes a file of what fill writes.
func (w worst) write(t *testing.T, name string, fill func(*bufio.Writer)) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(w.path(name))
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriterSize(f, 1<<20)
	fill(out)
	if err := errors.Join(out.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// save makes a record, in two folders.
func (w worst) save(t *testing.T, name string, doc any) {
	t.Helper()
	b, err := record.Encode(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{"runs/a-", "runs/b-", ""} {
		w.write(t, in+name, func(out *bufio.Writer) { out.Write(b) })
	}
}

// records makes a record of lab with as many rows and warnings as one may have, and one of bench with 700 000 rounds, two of
// which are as large as records may be together, and a folder of 300.
func (w worst) records(t *testing.T) {
	long := strings.Repeat("x", 700)
	l := recordtest.GateLab("debian:6.1-cloud")
	for i := len(l.Rows); i < record.MaxRows; i++ {
		r := l.Rows[0]
		r.Name, r.Labels = fmt.Sprintf("k%d/bulk=1", i), map[string]string{"kernel": fmt.Sprint("k", i), "bulk": "1"}
		r.Release, r.Thunk, r.SpectreV2 = long, long, long
		l.Rows = append(l.Rows, r)
	}
	for i := range record.MaxRows - 10 {
		l.Warn("x", fmt.Sprint("y", i))
	}
	w.save(t, "lab.json", l)
	var rows []record.BenchRow
	rounds := make([]float64, 70)
	for i := range rounds {
		rounds[i] = 100 + float64(i)/7
	}
	for i := range record.MaxRows {
		rows = append(rows, recordtest.Row(fmt.Sprint("row", i), map[string]string{"bulk": fmt.Sprint(i)}, rounds, 1))
	}
	w.save(t, "bench.json", recordtest.Document("run", rows...))
	for i := range 300 {
		b, err := record.Encode(recordtest.Document(fmt.Sprint("run", i), rows[:6]...))
		if err != nil {
			t.Fatal(err)
		}
		w.write(t, fmt.Sprintf("many/%03d.json", i), func(out *bufio.Writer) { out.Write(b) })
	}
}

// traces makes two records of lab whose traces have as many texts as fit into memory, and as fit into a record that is saved anew; and a
// kernel that does not boot.
func (w worst) traces(t *testing.T) {
	t.Helper()
	for name, texts := range map[string]int{"texts.json": 3_800_000, "resume.json": 2_280_000, "long.json": 300_000} {
		l := recordtest.GateLab("k")
		l.Rows = l.Rows[1:]
		all := uint64(64 * *l.Rows[0].Instructions)
		functions := []record.LabTraceFunction{{Function: "f", Stage: "receive", Executed: all, Inclusive: all}}
		trace := &record.LabTrace{Packets: 64, Executed: all, Functions: functions}
		for n := 0; n < texts; {
			s := record.LabTraceStack{Stage: "receive", Frames: make([]string, 257)} // a list of 257 has room for 512
			for i := range s.Frames {
				if s.Frames[i] = fmt.Sprintf("%09x", n); name == "long.json" { // the most bytes
					s.Frames[i] += strings.Repeat("<", 170)
				}
				n++
			}
			if len(trace.Stacks) == 0 {
				s.Executed = all
			}
			if trace.Stacks = append(trace.Stacks, s); len(trace.Stacks) == record.MaxRows || n >= texts {
				r := l.Rows[0]
				r.Name, r.Trace = fmt.Sprintf("k%d/bulk=16", len(l.Rows)), trace
				l.Rows = append(l.Rows, r)
				trace = &record.LabTrace{Packets: 64, Executed: all, Functions: functions}
			}
		}
		w.write(t, name, func(out *bufio.Writer) {
			enc := json.NewEncoder(out)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(l); err != nil {
				t.Fatal(err)
			}
		})
		if _, err := record.Load(w.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	w.write(t, "vmlinuz", func(out *bufio.Writer) { out.Write(testutil.BzImage("6.12.1-made", "no kernel")) })
}

// elfPart is a section of [elfFile].
type elfPart struct {
	name              string
	kind, link        uint32
	flags, addr, size uint64 // size of an entry
	data              []byte
}

// elfFile is a 64-bit file of a type for a machine.
func elfFile(kind, machine uint16, parts ...elfPart) []byte {
	names := []byte{0}
	parts = append(append([]elfPart{{}}, parts...), elfPart{name: ".shstrtab", kind: 3})
	var at []uint32
	for _, p := range parts {
		at = append(at, uint32(len(names)))
		names = append(append(names, p.name...), 0)
	}
	parts[len(parts)-1].data = names
	var body, headers bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&headers, binary.LittleEndian, v) // into memory
		}
	}
	for i, p := range parts {
		put(at[i], p.kind, p.flags, p.addr, uint64(64+body.Len()), uint64(len(p.data)), p.link, uint32(1), uint64(8), p.size)
		body.Write(p.data)
	}
	sections := headers.Bytes()
	headers = bytes.Buffer{}
	put([]byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"), kind, machine, uint32(1), uint64(0), uint64(0),
		uint64(64+body.Len()), uint32(0), uint16(64), uint16(0), uint16(0), uint16(64), uint16(len(parts)), uint16(len(parts)-1))
	return append(append(headers.Bytes(), body.Bytes()...), sections...)
}

// symbols are the tables of n functions of some bytes each in section 1, which begins at addr; some have names of their own.
func symbols(n int, addr, size uint64, strings uint32, named map[int]string) []elfPart {
	table, names := make([]byte, 24), []byte{0}
	for i := range n {
		table = binary.LittleEndian.AppendUint32(table, uint32(len(names)))
		table = append(table, 0x12, 0, 1, 0)
		table = binary.LittleEndian.AppendUint64(table, addr+uint64(i)*size)
		table = binary.LittleEndian.AppendUint64(table, size)
		names = append(append(names, cmp.Or(named[i], fmt.Sprint("function_with_a_name_", i))...), 0)
	}
	return []elfPart{{name: ".symtab", kind: 2, link: strings, size: 24, data: table}, {name: ".strtab", kind: 3, data: names}}
}

// programs makes a kernel of 48 MB, most of it indirect calls, with 524 288 symbols and eight modules, an object file with 65 536
// programs, and 100 MB of packets.
func (w worst) programs(t *testing.T) {
	const text, functions = 0xffffffff81000000, 1 << 19
	code := bytes.Repeat([]byte("\x48\x8b\x47\x08\xff\xd0\xe8\x00\x00\x00\x00\x75\xf3\xff\xe0\xc3"), functions*2)
	path := map[int]string{0: "_stext", 1: "veth_poll", 2: "veth_xdp_xmit", functions - 1: "_etext"}
	part := elfPart{name: ".text", kind: 1, flags: 6, addr: text, data: code}
	kernel := elfFile(2, 62, append([]elfPart{part}, symbols(functions, text, 32, 3, path)...)...)
	w.write(t, "tree/boot/vmlinuz-6.12.0", func(out *bufio.Writer) { out.Write(kernel) })
	part.addr, part.data = 0, code[:functions*4]
	module := elfFile(1, 62, append([]elfPart{part}, symbols(functions/8, 0, 32, 3, nil)...)...)
	for i := range 8 {
		w.write(t, fmt.Sprintf("tree/lib/modules/6.12.0/kernel/drivers/net/m%d.ko", i), func(out *bufio.Writer) { out.Write(module) })
	}
	w.write(t, "tree/lib/modules/6.12.0/modules.builtin", func(*bufio.Writer) {})
	const programs = 1 << 16
	pass := []byte("\xb7\x00\x00\x00\x02\x00\x00\x00\x95\x00\x00\x00\x00\x00\x00\x00")
	xdp := elfPart{name: "xdp", kind: 1, flags: 6, data: bytes.Repeat(pass, programs)}
	object := elfFile(1, 247, append([]elfPart{xdp}, symbols(programs, 0, 16, 3, nil)...)...)
	w.write(t, "many.o", func(out *bufio.Writer) { out.Write(object) })
	w.write(t, "sample.o", func(out *bufio.Writer) { out.Write(sample.Object()) })
	w.write(t, "packets.pcap", func(out *bufio.Writer) {
		out.WriteString("\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x01\x00\x00\x00")
		frame := make([]byte, 16+60)
		frame[8], frame[12], frame[16+12] = 60, 60, 8
		for i := range 100 << 20 / len(frame) {
			binary.LittleEndian.PutUint32(frame[16+26:], uint32(i))
			out.Write(frame)
		}
	})
}

// structs is a section of types: n structs of four members each.
func structs(n int) []byte {
	word := binary.LittleEndian.AppendUint32
	names := []byte("\x00int\x00")
	types := word(word(word(word(nil, 1), 1<<24), 4), 1<<24|32)
	for i := range n {
		name := uint32(len(names))
		names = append(fmt.Appendf(names, "s%x", i), 0)
		types = word(word(word(types, name), 4<<24|4), 16)
		for member := range uint32(4) {
			types = word(word(word(types, name), 1), 32*member)
		}
	}
	head := []byte{0x9f, 0xeb, 1, 0}
	for _, size := range []int{24, 0, len(types), len(types), len(names)} {
		head = word(head, uint32(size))
	}
	return append(append(head, types...), names...)
}

// pack makes a file packed with gzip, at its fastest.
func (w worst) pack(t *testing.T, name string, b []byte) {
	w.write(t, name, func(out *bufio.Writer) {
		z, _ := gzip.NewWriterLevel(out, gzip.BestSpeed) // a level that there is
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// kernels makes packed kernels of 4 to 13 MB that unpack to as much as a kernel may have: each part is within its limit, and
// all of them are more than there is room for. One has what just fits.
func (w worst) kernels(t *testing.T) {
	const text, most, functions = 0xffffffff81000000, 192 << 20, 1<<20 - 1
	code := bytes.Repeat([]byte("\x48\x8b\x47\x08\xff\xd0\xe8\x00\x00\x00\x00\x75\xf3\xff\xe0\xc3"), 4<<20)
	tree := func(name string, functions, types, size int) {
		path := map[int]string{0: "_stext", 1: "veth_poll", 2: "veth_xdp_xmit", functions - 2: "_etext"}
		parts := append([]elfPart{{name: ".text", kind: 1, flags: 6, addr: text, data: code}}, symbols(functions-1, text, 64, 3, path)...)
		parts = append(parts, elfPart{name: ".BTF", kind: 1, data: structs(types)})
		for _, p := range parts {
			size -= len(p.data) + 100
		}
		if size > 0 {
			parts = append(parts, elfPart{name: ".pad", kind: 1, flags: 2, addr: text + 1<<29, data: make([]byte, size)})
		}
		w.pack(t, name+"/boot/vmlinuz-6.12.0", elfFile(2, 62, parts...))
		w.write(t, name+"/lib/modules/6.12.0/modules.builtin", func(*bufio.Writer) {})
	}
	tree("large", functions, 450_000, most-1<<20)
	tree("full", 1<<16, 330_000, 100<<20)
	for name, size := range map[string]int{"large": most - 1<<20, "full": 64 << 20} {
		const functions, relocations = 1<<18 - 1, 1<<20 - 1
		part := elfPart{name: ".text", kind: 1, flags: 6, data: code[:32<<20]}
		parts := append([]elfPart{part}, symbols(functions-1, 0, 128, 3, nil)...)
		var relocs []byte
		for i := range min(relocations, size/64) {
			relocs = binary.LittleEndian.AppendUint64(relocs, uint64(i*32+7)%(32<<20))
			relocs = binary.LittleEndian.AppendUint64(relocs, uint64(i%functions)<<32|4)
			relocs = binary.LittleEndian.AppendUint64(relocs, ^uint64(3))
		}
		used := len(relocs) + 100
		for _, p := range parts {
			used += len(p.data) + 100
		}
		parts = append(parts, elfPart{name: ".rela.text", kind: 4, link: 2, size: 24, data: relocs})
		if used < size {
			parts = append(parts, elfPart{name: ".pad", kind: 1, flags: 2, data: make([]byte, size-used)})
		}
		module := elfFile(1, 62, parts...)
		for i := range 2 {
			w.pack(t, fmt.Sprintf("%s/lib/modules/6.12.0/kernel/drivers/net/m%d.ko.gz", name, i), module)
		}
	}
	w.pack(t, "arm/boot/vmlinuz-6.12.0", imageARM64(most, functions+1, 450_000))
	w.write(t, "arm/lib/modules/6.12.0/modules.builtin", func(*bufio.Writer) {})
}

// imageARM64 is an Image of arm64 of some bytes, 64 MiB of them indirect calls, with a table of relocations, so many symbols
// whose names have 60 bytes, and types.
func imageARM64(size, functions, types int) []byte {
	const base, begin, code, token = 0xffff800080000000, 1 << 16, 64 << 20, 30
	le := binary.LittleEndian
	b := make([]byte, begin, size)
	le.PutUint32(b, 0x14000000) // b .
	le.PutUint64(b[16:], uint64(size))
	le.PutUint64(b[24:], 0xa)
	copy(b[0x38:], "ARM\x64")
	copy(b[0x2000:], "Linux version 6.12.0 (x)")
	b = append(b, bytes.Repeat([]byte("\x00\x01\x3f\xd6\x00\x01\x3f\xd6\x00\x01\x3f\xd6\xc0\x03\x5f\xd6"), code/16)...)
	align := func(n int) { b = append(b, make([]byte, (n-len(b)%n)%n)...) }
	for i := range uint64(100) { // the first has the lowest address
		b = le.AppendUint64(le.AppendUint64(le.AppendUint64(b, base+0x4000+8*i), 1027), base+64*i)
	}
	align(1 << 12)
	tokens := []string{"T_text", "T_stext", "T_etext", "Tveth_poll", "Tveth_xdp_xmit"}
	for i := len(tokens); i < 256; i++ {
		tokens = append(tokens, fmt.Sprintf("t%03d%s", i, strings.Repeat("x", token-4)))
	}
	var marks, offsets []byte
	b = le.AppendUint64(b, uint64(functions))
	names := len(b)
	for i := range functions {
		if i%256 == 0 {
			marks = le.AppendUint32(marks, uint32(len(b)-names))
		}
		one, at := -1, min(begin+i*64, begin+code-16)
		switch i {
		case 0:
			one, at = 0, 0
		case 1:
			one, at = 1, begin
		case 2, 3:
			one, at = i+1, begin+16*(i-1)
		case functions - 1:
			one, at = 2, begin+code
		}
		if one >= 0 {
			b = append(b, 1, byte(one))
		} else {
			b = append(b, 2, byte(5+i%251), byte(5+i/251%251))
		}
		offsets = le.AppendUint32(offsets, uint32(at))
	}
	align(8)
	b = append(b, marks...)
	align(8)
	var index []byte
	first := len(b)
	for _, t := range tokens {
		index = le.AppendUint16(index, uint16(len(b)-first))
		b = append(append(b, t...), 0)
	}
	align(8)
	b = append(append(b, index...), offsets...)
	align(8)
	b = le.AppendUint64(b, base)
	align(1 << 12)
	b = append(b, structs(types)...)
	return b[:size]
}

// machines makes 100 MB of records of agent, each of another machine, and a store of them.
func (w worst) machines(t *testing.T, exe string) {
	b, err := os.ReadFile("../../internal/fleet/testdata/agent.json")
	if err != nil {
		t.Fatal(err)
	}
	var short bytes.Buffer
	if err := json.Compact(&short, b); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("a35b5fa4b7554313955a9b1c71aeab26", "%032[1]x", "S2LKWIM3OWMVHTIXZHX4RXP4UC", "%026[1]d",
		`"time":"2026-11-29T17:22:22Z"`, `"time":"`+time.Now().UTC().Format(time.RFC3339)+`"`, `"drivers":[`,
		`"labels":{"n":"%[1]d"},"drivers":[`, "%", "%%").Replace(short.String())
	w.write(t, "agents.ndjson", func(out *bufio.Writer) {
		for i := range 100 << 20 / short.Len() {
			fmt.Fprintf(out, text+"\n", i)
		}
	})
	if out, err := exec.Command(exe, "fleet", "ingest", "--store", w.path("fleet.db"), w.path("agents.ndjson")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// worstRun is what a command took.
type worstRun struct {
	peak        int64         // of its memory, in bytes
	lived, took time.Duration // in all, and after SIGTERM; 0 when it ended before
	cpu         time.Duration // of the CPUs, in what it took
	exit        int           // -1 when a signal ended it
}

// runWorst runs a command, which gets SIGTERM after some time.
func runWorst(t *testing.T, after time.Duration, exe string, args ...string) (r worstRun) {
	t.Helper()
	cmd := exec.Command(exe, args...)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	began, ended := time.Now(), make(chan struct{})
	go func() {
		_ = cmd.Wait() // many end by a signal
		close(ended)
	}()
	var signaled time.Time
	var before, now time.Duration
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			if !signaled.IsZero() {
				r.took, r.cpu = time.Since(signaled), now-before
			}
			r.lived, r.exit = time.Since(began), cmd.ProcessState.ExitCode()
			return r
		case <-tick.C:
			r.peak, now = max(r.peak, highWater(cmd.Process.Pid)), max(now, cpuTime(cmd.Process.Pid))
			if signaled.IsZero() && time.Since(began) > after {
				signaled, before = time.Now(), now
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Log(err) // it ended
				}
			}
		}
	}
}

// highWater is the most memory that a process had at a time, in bytes; 0 when it is gone. The rusage of a child of a Go
// program would begin with what that has.
func highWater(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, text, _ := strings.Cut(string(b), "VmHWM:")
	text, _, _ = strings.Cut(strings.TrimSpace(text), " ")
	n, _ := strconv.ParseInt(text, 10, 64)
	return n << 10
}

// cpuTime is what a process has had of the CPUs, to 10 ms; 0 when it is gone.
func cpuTime(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, text, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(text)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// loadAverage is how many processes wanted a CPU in the last minute.
func loadAverage(t *testing.T) float64 {
	t.Helper()
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(b), " ")
	load, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return load
}

// No verb takes more than 512 MB for what others made, and SIGTERM ends each within a second: after each quarter of
// the time that it takes, of at most 20 s.
func TestVerifyWorst(t *testing.T) {
	testutil.Root(t)
	exe := build(t)
	const most, soon, longest = 512e6, time.Second, 20 * time.Second
	verify.Run(t, verify.Check{
		Claim: "on the worst inputs no verb takes more than 512 MB, and SIGTERM ends each within a second",
		Measure: func(t *testing.T, short bool) verify.Finding {
			w := worst{t.TempDir()}
			lines := strings.Split(strings.TrimSpace(worstVerbs), "\n")
			parts := 4
			w.records(t)
			if short {
				lines, parts = lines[:1], 2
			} else {
				w.programs(t)
				w.kernels(t)
				w.machines(t, exe)
				w.traces(t)
			}
			f := verify.Finding{Holds: true}
			var large, slow worstRun
			for _, line := range lines {
				args := strings.Fields(strings.ReplaceAll(line, "DIR", w.dir))
				r := runWorst(t, longest, exe, args...)
				for i := 1; i < parts; i++ {
					stopped := runWorst(t, min(r.lived, longest)*time.Duration(i)/time.Duration(parts), exe, args...)
					r.peak, r.took, r.cpu = max(r.peak, stopped.peak), max(r.took, stopped.took), max(r.cpu, stopped.cpu)
				}
				line = strings.ReplaceAll(line, "DIR/", "")
				t.Logf("| `%s` | %d | %.1f | %d | %d | %d |", line, r.exit, r.lived.Seconds(), r.peak/1e6, r.took.Milliseconds(),
					r.cpu.Milliseconds())
				if r.peak > large.peak {
					large = r
				}
				if r.took > slow.took {
					slow = r
				}
				f.Holds = f.Holds && r.peak <= most && r.took <= soon
			}
			if load := loadAverage(t); slow.took > soon && large.peak <= most && load > float64(runtime.NumCPU()+1) {
				f.Unknown = fmt.Sprintf("the machine was busy: a load of %.0f", load)
			}
			f.Figure = fmt.Sprintf("%d MB at most, and %d ms with %d of CPU time", large.peak/1e6, slow.took.Milliseconds(),
				slow.cpu.Milliseconds())
			return f
		},
	})
}

// worstVerbs are the command lines, with DIR for the folder of [worst].
const worstVerbs = `
report DIR/lab.json -o DIR/out.html
report DIR/lab.json --format markdown
report DIR/lab.json --format csv
report DIR/bench.json -o DIR/out.html
report DIR/runs -o DIR/out.html
compare DIR/lab.json DIR/lab.json
compare DIR/bench.json DIR/bench.json
history DIR/runs
history DIR/many
report DIR/many -o DIR/out.html
gate --base DIR/lab.json DIR/lab.json
report DIR/texts.json -o DIR/out.html
xray --root DIR/full --counts DIR/texts.json
lab DIR/vmlinuz --accel tcg --scenario drop --bulk 1 --limit 5s --resume --save DIR/resume.json
lab DIR/vmlinuz --accel tcg --scenario drop --bulk 1 --limit 5s --resume --save DIR/long.json
xray --root DIR/tree
xray --root DIR/tree --all
xray --root DIR/tree --func no_such_function
xray --root DIR/tree --asm function_with_a_name_7
drivers DIR/tree
xray --root DIR/large
xray --root DIR/large --driver m0
xray --root DIR/large --all
drivers DIR/large
xray --root DIR/full
xray --root DIR/full --all
xray --root DIR/full --driver m0
drivers DIR/full
xray --root DIR/arm
xray --root DIR/arm --all
prog xray DIR/many.o
prog xray DIR/many.o:function_with_a_name_0
prog cost DIR/many.o:function_with_a_name_0 --packets udp4
prog cost DIR/sample.o:nat --packets DIR/packets.pcap
prog diff DIR/many.o:function_with_a_name_0 DIR/many.o:function_with_a_name_1 --packets udp4
prog diff DIR/sample.o:nat DIR/sample.o:nat --packets DIR/packets.pcap
fleet ingest --store DIR/new.db DIR/agents.ndjson
fleet who --store DIR/fleet.db
fleet who --store DIR/fleet.db --by label:n
fleet odd --store DIR/fleet.db
fleet compare --store DIR/fleet.db --base label:n=1* --canary label:n=2*
fleet report --store DIR/fleet.db --by label:n -o DIR/fleet.html
check
xray
prog list
bench --duration 60s
tax --duration 60s
profile --duration 60s
run
`
