package record

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Lists of more elements than any record has are refused before they are made,
// whatever the elements are: in memory each would be a row.
func TestManyObjects(t *testing.T) {
	for _, kind := range kinds() {
		for _, element := range []string{"{}", "null", "0", `""`, "[]"} {
			list := "[" + strings.Repeat(element+",", MaxRows-1) + element + "],"
			b := fmt.Appendf(nil, `{"schema":"unthunk/1","kind":%q,"run":"a","x":[%s[]]}`, kind.name,
				strings.Repeat(list, maxObjects/MaxRows))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Parse(b)
			runtime.ReadMemStats(&after)
			if err == nil || err.Error() != "more than 500000 JSON objects" {
				t.Errorf("%s of %s: %v", kind.name, element, err)
			}
			// The counter takes 65 MB, with the race detector 70. As rows they would take 200 to 500.
			if got := after.TotalAlloc - before.TotalAlloc; got > 96<<20 {
				t.Errorf("%s of %s: %d bytes allocated for %d", kind.name, element, got, len(b))
			}
		}
	}
}

// One map, or many, of more keys than any machine has devices; more rows than a record may have, by whichever
// spelling json.Unmarshal takes for theirs.
func TestManyNames(t *testing.T) {
	keys := func(n int) string {
		var s strings.Builder
		for i := range n {
			fmt.Fprintf(&s, `"eth%d":"",`, i)
		}
		return "{" + strings.TrimSuffix(s.String(), ",") + "}"
	}
	for _, test := range []struct{ field, want string }{
		{`"host":{"drivers":` + keys(maxKeys+1) + `}`, "more than 5000 names in one JSON object"},
		{`"x":[` + strings.Repeat(keys(maxKeys)+",", maxNamed/maxKeys) + `{}]`, "more than 3000000 JSON names"},
		{`"rows":[` + strings.Repeat("{},", MaxRows) + `{}]`, "more than 10000 rows"},
		{`"RowS":[` + strings.Repeat("{},", MaxRows) + `{}]`, "more than 10000 rows"},
		{`"warnings":[` + strings.Repeat("{},", MaxRows) + `{}]`, "more than 10000 warnings"},
		{`"rows":[{"Targets":[` + strings.Repeat(`"",`, maxNames) + `""]}]`, "more than 1000 targets"},
		{`"rows":[{"what":[` + strings.Repeat(`"",`, maxNames) + `""]}]`, "more than 1000 what"},
		{`"rows":[{"dma":[` + strings.Repeat(`{},`, MaxRows) + `{}]}]`, "more than 10000 dma"},
		{`"partial":[` + strings.Repeat(`{},`, MaxRows) + `{}]`, "more than 10000 partial"},
		{`"maps":[` + strings.Repeat(`{},`, maxPrograms) + `{}]`, "more than 100000 maps"},
		{`"x":[` + strings.Repeat(`[`+strings.Repeat(`{"a":{},"b":{}},`, 9000)+`{}],`, 55) + `{}]`, "it would take more than 320 MiB of memory"},
	} {
		_, err := Parse([]byte(`{"schema":"unthunk/1","kind":"bench","run":"a",` + test.field + `}`))
		if err == nil || err.Error() != test.want {
			t.Errorf("%.40s…: error %v, want %s", test.field, err, test.want)
		}
	}
	_, err := Parse([]byte(`{"schema":"unthunk/1","kind":"bench","run":"a","rows":[],"host":{"drivers":` + keys(maxKeys) + `}}`))
	if err != nil {
		t.Errorf("%d names: %v", maxKeys, err)
	}
}

// A text of a machine has a limit, whatever the kind of the record.
func TestHostTexts(t *testing.T) {
	for field, text := range map[string]string{
		"cpu": "%q", "microcode": "%q", "virtual": "%q", "kernel": "%q", "kernel-build": "%q", "compiler": "%q", "boot-params": "%q",
		"indirect-thunk": "%q", "return-thunk": "%q", "call-sites": "%q", "cfi": "%q", "bpf-jit": "%q", "bpf-jit-harden": "%q",
		"smt": "%q", "governor": "%q", "mitigations": `{"x":%q}`, "drivers": `{"x":%q}`,
	} {
		for _, kind := range []string{"bench", "check", "compare"} {
			for n, want := range map[int]bool{maxHostText: true, maxHostText + 1: false} {
				host := fmt.Sprintf(text, strings.Repeat("é", n))
				_, err := Parse(fmt.Appendf(nil, `{"schema":"unthunk/1","kind":%q,"run":"a","rows":[],"host":{%q:%s}}`, kind, field, host))
				if (err == nil) != want || err != nil && !strings.HasPrefix(err.Error(), "host: impossible text ") {
					t.Errorf("%s of %s, %d characters: %v", field, kind, n, err)
				}
			}
		}
	}
	long := strings.Repeat("x", maxHostText)
	_, err := Parse(fmt.Appendf(nil, `{"schema":"unthunk/1","kind":"bench","run":"a","rows":[],"host":{"drivers":{%q:"veth"}}}`, long))
	if err == nil || !strings.HasPrefix(err.Error(), "host: impossible text ") {
		t.Errorf("name: %v", err)
	}
}

func TestCounter(t *testing.T) {
	for text, want := range map[string]struct{ objects, named, plain int }{
		`{}`:                               {},
		`{"a":1,"b":{"c":null}}`:           {named: 3},
		`{"rows":[{"a":1},null,0,[]]}`:     {named: 2, objects: 4},
		`{"samples":[1,2,"x"]}`:            {named: 1, plain: 3},
		`{"samples":[[1,2],{"a":[1]}]}`:    {named: 2, plain: 2, objects: 3},
		`{"Samples":[1,2]}`:                {named: 1, objects: 2},
		`[1,[2,"a\"[{"]]`:                  {objects: 4},
		`{"s\u0061mples":[1]}`:             {named: 1, plain: 1},
		" [ 1 , { \"a\" : [ ] } ,\n{ } ] ": {objects: 3, named: 1},
		"-1e3":                             {},
	} {
		c := counter{b: []byte(text), limits: recordLimits}
		if err := c.value(nil); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if c.objects != want.objects || c.named != want.named || c.plain != want.plain || strings.TrimSpace(text[c.at:]) != "" {
			t.Errorf("%s: %d objects, %d names, %d plain, read up to %d, want %+v", text, c.objects, c.named, c.plain, c.at, want)
		}
	}
	samples := `{"samples":[` + strings.Repeat("0,", MaxRounds-1) + `0]},`
	c := counter{b: []byte(`[` + strings.Repeat(samples, maxPlain/MaxRounds) + samples + `0]`), limits: recordLimits}
	if err := c.value(nil); err == nil || err.Error() != "more than 5000000 JSON values in plain lists" {
		t.Error(err)
	}
}

// Records that are in memory together have the limit of one, in bytes and in what they take. What is not kept
// of a record does not count.
func TestTogether(t *testing.T) {
	t.Parallel()
	half := filepath.Join(t.TempDir(), "half.json")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(half, MaxSize/2); err != nil {
		t.Fatal(err)
	}
	var all Together
	if err := all.Fit(half, half, "not there"); err != nil {
		t.Error(err)
	}
	if err := all.Fit(half, half, half); err == nil || err.Error() != "the records have 96 MB together, more than 64" {
		t.Error(err)
	}
	// 1 MB in the file, 150 MB in memory.
	row := `{"name":"r%d","sites":[],"functions":[],"calls":1,"dma":[{}` + strings.Repeat(`,{}`, MaxRows-1) + `]}`
	rows := make([]string, 35)
	for i := range rows {
		rows[i] = fmt.Sprintf(row, i)
	}
	many, bad := filepath.Join(t.TempDir(), "many.json"), filepath.Join(t.TempDir(), "bad.json")
	doc := `{"schema":"unthunk/1","kind":"lab","run":"a","rows":[` + strings.Join(rows, ",") + `]}`
	for file, text := range map[string]string{many: doc, bad: strings.Replace(doc, `"run":"a"`, `"run":""`, 1)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(want string) {
		t.Helper()
		_, err := all.Load(many)
		if fmt.Sprint(err) != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if TooLarge(err) != strings.Contains(want, "with the records before it") {
			t.Errorf("TooLarge of %v", err)
		}
	}
	for range 3 {
		if _, err := all.Load(bad); err == nil || TooLarge(err) {
			t.Error(err)
		}
	}
	load("<nil>")
	load("<nil>")
	load("load " + many + ": with the records before it, it would take more than 320 MiB of memory: name fewer")
	all.Keep(10, 10, 10)
	load("<nil>")
}
