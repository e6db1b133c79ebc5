package result

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/stat"
)

const labJSON = `{"schema":"unthunk/1","kind":"lab","time":"2026-01-01T00:00:00Z","run":"a","host":{},"rows":[
{"name":"k/bulk=1","labels":{"kernel":"k"},"release":"6.12","thunk":"retpoline","spectre-v2":"","instructions":10.5,"calls":1,
"sites":[{"function":"f","offset":1,"kind":"thunk","stage":"receive","target":"g","per-packet":1}],"counts":{},"functions":[{"function":"f","per-packet":1}]}],"warnings":[],"differences":[],"price":null}`

func TestLoadLab(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.json")
	loaded := func(text string) (*Lab, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return LoadLab(path)
	}
	l, err := loaded(labJSON)
	if err != nil || len(l.Rows) != 1 || *l.Rows[0].Instructions != 10.5 {
		t.Fatalf("%+v, %v", l, err)
	}
	for name, change := range map[string][2]string{
		"negative":     {`"calls":1`, `"calls":-1`},
		"neither":      {`"calls":1`, `"calls":null`},
		"both":         {`"calls":1`, `"calls":1,"refused":"why"`},
		"name":         {`"name":"k/bulk=1"`, `"name":"k\u001b"`},
		"no run":       {`"run":"a"`, `"run":""`},
		"site":         {`"function":"f"`, `"function":"\u0007"`},
		"no function":  {`"function":"f"`, `"function":""`},
		"count":        {`"per-packet":1`, `"per-packet":1e300`},
		"function":     {`"functions":[{"function":"f","per-packet":1}]`, `"functions":[{"function":"f\n","per-packet":1}]`},
		"other schema": {`unthunk/1`, `unthunk/9`},
	} {
		text := strings.Replace(labJSON, change[0], change[1], 1)
		if text == labJSON {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := loaded(text); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := loaded(strings.Replace(labJSON, `"kind":"lab"`, `"kind":"xray"`, 1)); !errors.Is(err, ErrKind) {
		t.Errorf("another kind: %v", err)
	}
}

func FuzzLoadLab(f *testing.F) {
	f.Add([]byte(labJSON))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parseLab(b); err == nil {
			CompareLabs(l, l)
		}
	})
}

func TestLabHeadlineOfWires(t *testing.T) {
	row := func(dma string, calls float64) LabRow {
		return LabRow{Name: dma, Labels: map[string]string{"nic": "igb", "dma": dma, "kernel": "k"}, Calls: &calls, DMA: []LabDMA{{Part: "in-poll", Map: 1}, {Part: "out-xmit", Map: 2}}}
	}
	l := &Lab{Price: &stat.Quantity{Median: 10, Low: 9, High: 11, N: 7, Unit: "ns"}}
	l.Rows = []LabRow{row("direct", 0.125), row("iommu-strict", 10.125), row("swiotlb", 0.125)}
	if h := l.headline(); h.Title != "A redirected packet makes 0.12 to 10.1 indirect branches, by how its memory is mapped" ||
		!strings.Contains(h.Text, "The most: igb with iommu-strict on k.") || !strings.Contains(h.Text, "1.25 and 101 ns") {
		t.Errorf("%+v", h)
	}
	if sum := l.Rows[0].SumDMA(); sum.Map != 3 || sum.Unmap != 0 {
		t.Errorf("%+v", sum)
	}
	l.Rows = l.Rows[:1]
	if h := l.headline(); !strings.HasPrefix(h.Title, "A redirected packet makes 0.12 indirect branches: igb with direct") {
		t.Errorf("%+v", h)
	}
}

func TestCompareLabs(t *testing.T) {
	old, err := parseLab([]byte(labJSON))
	if err != nil {
		t.Fatal(err)
	}
	new, err := parseLab([]byte(labJSON))
	if err != nil {
		t.Fatal(err)
	}
	if c := CompareLabs(old, new); c.Same != 1 || len(c.Rows) != 0 {
		t.Errorf("%+v", c)
	}
	x := 10.5009765625
	new.Rows[0].Instructions = &x
	new.Rows[0].Sites[0].PerPacket = 2
	c := CompareLabs(old, new)
	if len(c.Rows) != 1 || strings.Join(c.Rows[0].What, ", ") != "instructions: 10.5 → 10.5009765625, site f → g: 1 → 2" {
		t.Errorf("%+v", c.Rows)
	}
}
