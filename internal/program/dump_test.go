package program

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestReadDump(t *testing.T) {
	t.Parallel()
	one, each := layout{key: 2, value: 3}, layout{key: 1, value: 2, cpus: 2}
	for _, tt := range []struct {
		layout layout
		text   string
		want   string // key and value of each entry
		other  dumped
	}{
		{one, `[]`, "", dumped{}},
		{one, `[{"key":["0x01","0x02"],"value":["0xff","0x00","0x7f"]}]`, "0102=ff007f ", dumped{entries: 1}},
		{one, `[{"key":["0x01","0x02"],"value":["0xff","0x00","0x7f"],"formatted":{"key":1,"value":{"a":[1]}}},
			{"key":[1,2],"value":[255, 0, 1]}]`, "0102=ff007f 0102=ff0001 ", dumped{entries: 2}},
		{one, `{"id":4,"elements":[{"key":["0x01","0x02"],"value":["1","2","3"]}]}`, "0102=010203 ", dumped{entries: 1}},
		{one, `[{"key":["0x01","0x02"],"value":{"error":"No such file or directory"}}]`, "", dumped{absent: 1}},
		{each, `[{"key":["0x01"],"values":[{"cpu":0,"value":["1","2"]},{"cpu":1,"value":["3","4"]},{"cpu":2,"value":["5","6"]}]}]`,
			"01=01020000000000000304000000000000 ", dumped{entries: 1, otherCPUs: 1}},
	} {
		got := ""
		d, err := readDump(t.Context(), strings.NewReader(tt.text), tt.layout, func(key, value []byte) error {
			got += fmt.Sprintf("%x=%x ", key, value)
			return nil
		})
		if err != nil || got != tt.want || d != tt.other {
			t.Errorf("%s: %s, %+v, %v", tt.text, got, d, err)
		}
	}
	for text, want := range map[string]string{
		"":    "not JSON",
		"17":  "no dump of a map",
		"{}":  "no elements",
		"[":   "entry 1: the file ends",
		"[{}": "entry 1: there is no key",
		`[{"key":["0x01","0x02"],"value":["0xff","0x00","0x7f"]}`:      "entry 2: the file ends",
		`[{"key":1,"value":2}]`:                                        "formatted by BTF",
		`[{"key":{"a":1},"value":{"b":2}}]`:                            "formatted by BTF",
		`[{"key":["1","2"],"value":["1","2"]}]`:                        "the value has 2 bytes, those of the map have 3",
		`[{"key":["1","2"],"value":["1","2","256"]}]`:                  `byte 3 of the value is "256"`,
		`[{"key":["1","2"],"value":["1","2",{"a":1}]}]`:                "byte 3 of the value",
		`[{"key":["1","2"],"values":[{"cpu":0,"value":["1"]}]}]`:       "a value for each CPU, and the map has one",
		`[{"id":1,"elements":[]}]`:                                     "several maps",
		`[{"key":["1","2"],"value":["1","2",-1]}]`:                     "byte 3 of the value",
		`[{"key":["1","2"],"value":["1","2","3"],"values":[]}]`:        "a value for each CPU",
		`[{"key":["1","2"],"formatted":"` + strings.Repeat("x", 1<<20): "more than",
	} {
		if _, err := readDump(t.Context(), strings.NewReader(text), one, func(_, _ []byte) error { return nil }); err == nil ||
			!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.80s: %v, want %s", text, err, want)
		}
	}
}

// An entry takes little memory whatever is in it: 6 MB of empty values took 160.
func TestReadDumpMemory(t *testing.T) {
	values := `[{"key":["1","2"],"values":[` + strings.Repeat("{},", 2<<20) + `{}]}]`
	for _, l := range []layout{{key: 2, value: 1 << 20}, {key: 2, value: 1 << 20, cpus: 2}} {
		testutil.Allocates(t, uint64(8*len(values)), func() {
			_, err := readDump(t.Context(), strings.NewReader(values), l, func(_, _ []byte) error { return nil })
			if err == nil || !strings.Contains(err.Error(), "values of more than 8192 CPUs") {
				t.Errorf("%+v: %v", l, err)
			}
		})
	}
	huge := layout{key: 4, value: 1 << 30, cpus: 128}
	if n := huge.room(); n > 65<<20 {
		t.Errorf("an entry may have %d bytes of text", n)
	}
}

// What no bpftool wrote ends in one line, and takes little memory.
func FuzzDump(f *testing.F) {
	f.Add([]byte(`[{"key":["0x01","0x02"],"value":["0xff","0x00","0x7f"],"formatted":{"key":1}}]`), false)
	f.Add([]byte(`[{"key":["0x01","0x02"],"values":[{"cpu":0,"value":["1","2","3"]},{"cpu":1,"value":["3","4",5]}]}]`), true)
	f.Add([]byte(`{"id":1,"elements":[{"key":[1,2],"value":{"error":"gone"}}]}`), false)
	f.Fuzz(func(t *testing.T, b []byte, perCPU bool) {
		l := layout{key: 2, value: 3}
		if perCPU {
			l.cpus = 2
		}
		testutil.Allocates(t, uint64(1<<20+64*len(b)), func() {
			_, err := readDump(t.Context(), bytes.NewReader(b), l, func(key, value []byte) error {
				if len(key) != 2 || len(value) != l.stride() {
					return fmt.Errorf("key %x, value %x", key, value)
				}
				return nil
			})
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %v", err)
			}
		})
	})
}

// A map is filled with what bpftool wrote of another.
func TestFill(t *testing.T) {
	testutil.Root(t)
	const bpftool = "bpftool"
	if _, err := exec.LookPath(bpftool); err != nil {
		testutil.Missing(t, bpftool)
	}
	live, dir := production(t), t.TempDir()
	files := map[string]string{}
	for _, name := range []string{
		"flows_of_this_balancer", "hash", "percpu_hash", "lru_percpu", "array", "counters", "routes", ".rodata", ".bss", ".data",
	} {
		m := live.Maps[name]
		if m == nil {
			continue
		}
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		flag := "-j"
		if len(files)%2 == 1 {
			flag = "-p"
		}
		out, err := exec.Command(bpftool, flag, "map", "dump", "id", fmt.Sprint(id)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		files[name] = filepath.Join(dir, name)
		if err := os.WriteFile(files[name], out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := compile(t) + ":balance"
	o := open(t, path, Options{Maps: files})
	before, after := sums(t, live), sums(t, o)
	for name := range files {
		if len(before[name]) == 0 || fmt.Sprint(before[name]) != fmt.Sprint(after[name]) {
			t.Errorf("%s: %.300v, want %.300v", name, after[name], before[name])
		}
	}
	for _, tt := range []struct{ name, file, want string }{
		{"hass", files["hash"], "no map hass: it uses"},
		{"hash", "/nosuch", "no such file"},
		{"hash", "/dev/zero", "not a regular file"},
		{"hash", files["counters"], "the key has 4 bytes"},
		{"array", files["counters"], "a value for each CPU"},
		{"stages", files["hash"], "--maps-from copies it"},
		{"sockets", files["hash"], "AF_XDP sockets"},
		{".rodata", files["array"], "the value has 4 bytes"},
	} {
		if err := refused(t, path, Options{Maps: map[string]string{tt.name: tt.file}}); !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s=%s: %v, want %s", tt.name, tt.file, err, tt.want)
		}
	}
	var many strings.Builder
	for i := range 1000 { // of an LRU with room for 100
		values := ""
		for cpu := range ebpf.MustPossibleCPU() {
			values += fmt.Sprintf(`,{"cpu":%d,"value":["0","0","0","0","0","0","0","0"]}`, cpu)
		}
		fmt.Fprintf(&many, `,{"key":["%d","%d","0","0"],"values":[%s]}`, i%256, i/256, values[1:])
	}
	large := filepath.Join(dir, "many")
	if err := os.WriteFile(large, []byte("["+many.String()[1:]+"]"), 0o600); err != nil {
		t.Fatal(err)
	}
	o = open(t, path, Options{Maps: map[string]string{"lru_percpu": large}})
	said := strings.Join(o.Warnings, " ")
	if !strings.Contains(said, "map lru_percpu: the LRU dropped") || !strings.Contains(said, "of 1000 entries") {
		t.Errorf("an LRU that is too small: %s", said)
	}
	var option *OptionError
	if err := refused(t, path, Options{Maps: map[string]string{"hass": "x"}}); !errors.As(err, &option) || len(option.Known) < 10 {
		t.Errorf("%v", err)
	}
}
