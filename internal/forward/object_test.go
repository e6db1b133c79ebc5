package forward

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// compile makes a BPF object of testdata/large.bpf.c.
func compile(t testing.TB, flags ...string) (path string) {
	t.Helper()
	return testutil.Compile(t, "testdata/large.bpf.c", flags...)
}

// A BPF object of the user's decides what is forwarded, by a tail call too.
func TestObject(t *testing.T) {
	for engine, m := range map[Engine]string{AFXDP: "BPF_MAP_TYPE_XSKMAP", XDP: "BPF_MAP_TYPE_DEVMAP"} {
		for name, object := range map[string]string{
			"one program": compile(t, "-DMAP="+m), "tail call": compile(t, "-DMAP="+m, "-DTAIL") + ":entry",
		} {
			t.Run(string(engine)+" "+name, func(t *testing.T) { testObject(t, engine, object) })
		}
	}
}

func testObject(t *testing.T, engine Engine, object string) {
	w := newWires(t)
	atSink, atGen := veth.Listen(t, w.Namespace, w.sink.Index), veth.Listen(t, w.Namespace, w.gen.Index)
	f := w.open(t, Config{Pairs: pair, Both: true, Engine: engine, Object: object})
	for _, way := range []struct {
		from    int
		receive func() []byte
	}{{w.gen.Index, atSink}, {w.sink.Index, atGen}} {
		veth.Send(t, w.Namespace, way.from, veth.Frame(t, 98), veth.Frame(t, 99), veth.Frame(t, 100))
		if got := way.receive(); len(got) != 100 {
			t.Errorf("received %d bytes, want 100", len(got))
		}
	}
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range got.Directions {
		if d.Sent != 1 {
			t.Errorf("%+v", d)
		}
	}
}

// Objects that cannot be used are refused in one line.
func TestObjectRefused(t *testing.T) {
	w := newWires(t)
	rubbish := filepath.Join(t.TempDir(), "rubbish.o")
	if err := os.WriteFile(rubbish, []byte("\x7fELF\x02\x01\x01rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	devmap := compile(t, "-DMAP=BPF_MAP_TYPE_DEVMAP")
	two := compile(t, "-DTWO")
	readonly := compile(t, "-DMAP=BPF_MAP_TYPE_DEVMAP", fmt.Sprint("-DFLAGS=", unix.BPF_F_RDONLY))
	for _, test := range []struct {
		name, object, want string
		engine             Engine
	}{
		{"rubbish", rubbish, "read BPF object", AFXDP},
		{"no map", compile(t), "no map of type", AFXDP},
		{"two programs", two, two + " has 2 XDP programs: name one, as " + two + ":large: large, other", AFXDP},
		{"no such program", two + ":nope", two + " has no program nope: it has large, other", AFXDP},
		{"wrong map", devmap, "no map of type XSKMap", AFXDP},
		{"read-only map", readonly, "map of type DevMap in the BPF object has BPF_F_RDONLY", XDP},
	} {
		err := w.Do(func() error {
			f, err := Open(t.Context(), Config{Pairs: pair, Engine: test.engine, Object: test.object})
			if err == nil {
				f.Close()
			}
			return err
		})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		if _, usage := errors.AsType[*program.OptionError](err); usage != strings.HasPrefix(test.want, two) { // exit code 2
			t.Errorf("%s: %T", test.name, err)
		}
	}
}

// Maps of an object take at most half of the memory that there is, together with those of the objects that are loaded
// already. Maps that its program does not use are not made.
func TestObjectMemory(t *testing.T) {
	over := fmt.Sprintf("-DROOM=%d", memory.Limit()/2>>20+1)
	const want = "memory for the maps of the object: with "
	for engine, m := range map[Engine]string{AFXDP: "-DMAP=BPF_MAP_TYPE_XSKMAP", XDP: "-DMAP=BPF_MAP_TYPE_DEVMAP"} {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			for _, test := range []struct{ used, want string }{{"-DUSED", want + "room, of "}, {"-UUSED", ""}} {
				err := w.Do(func() error {
					f, err := Open(t.Context(), Config{Pairs: pair, Engine: engine, Object: compile(t, m, over, test.used)})
					if err == nil {
						err = f.Close()
					}
					return err
				})
				refused := test.want != ""
				if (err != nil) != refused || refused && (feature.AsMissing(err) == nil || !strings.Contains(err.Error(), test.want)) {
					t.Errorf("a map larger than the machine, %s: %v", test.used, err)
				}
			}
			f := w.open(t, Config{Pairs: pair, Engine: engine, Object: compile(t, m)})
			var first *object
			switch f := f.(type) {
			case *afxdp:
				first = f.objects[0]
			case *inKernel:
				first = f.objects[0]
			}
			if got := first.memory; got < 64*8 || got > 4<<10 {
				t.Errorf("its map of 64 pointers, with the map's own structure, takes %d bytes", got)
			}
			if err := f.Reload(t.Context(), nil); err != nil {
				t.Error(err)
			}
			w.arrives(t, 100, 100)
			switch f := f.(type) { // as if their maps were as large as may be
			case *afxdp:
				f.objects[0].memory = memory.Limit() / 2
				if p, err := f.attachInput(t.Context(), 0); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("loaded for a device that comes back: %v, %v", p, err)
				}
			case *inKernel:
				f.objects[0].memory = memory.Limit() / 2
			}
			if err := f.Reload(t.Context(), nil); feature.AsMissing(err) == nil || !strings.Contains(err.Error(), want+"out, of 0 MiB") {
				t.Errorf("a second object of half of the memory: %v", err)
			}
			w.arrives(t, 100, 100)
		})
	}
}
