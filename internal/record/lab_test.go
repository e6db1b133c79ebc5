package record_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

func TestLoadLab(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.json")
	loaded := func(text string) (*record.Lab, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := record.Load(path)
		if err != nil {
			return nil, err
		}
		return s.Lab(), nil
	}
	l, err := loaded(recordtest.LabJSON)
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
		text := strings.Replace(recordtest.LabJSON, change[0], change[1], 1)
		if text == recordtest.LabJSON {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := loaded(text); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := loaded(strings.Replace(recordtest.LabJSON, `"kind":"lab"`, `"kind":"xray"`, 1)); err == nil || l != nil {
		t.Errorf("another kind: %v", err)
	}
}

func FuzzLoadLab(f *testing.F) {
	f.Add([]byte(recordtest.LabJSON))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := record.Parse(b); err == nil && s.Lab() != nil {
			compare.Labs(s.Lab(), s.Lab())
		}
	})
}
