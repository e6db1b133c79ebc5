package record

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// Lists of more elements than any record has are refused before they are made,
// whatever the elements are: in memory each would be a row.
func TestManyObjects(t *testing.T) {
	for _, kind := range kinds() {
		for _, element := range []string{"{}", "null", "0", `""`, "[]"} {
			b := fmt.Appendf(nil, `{"schema":"unthunk/1","kind":%q,"run":"a","rows":[%s%s]}`, kind.name,
				strings.Repeat(element+",", maxObjects), element)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Parse(b)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), "more than 500000 JSON objects") {
				t.Errorf("%s of %s: %v", kind.name, element, err)
			}
			// The counter takes 65 MB, with the race detector 70. As rows they would take 200 to 500.
			if got := after.TotalAlloc - before.TotalAlloc; got > 96<<20 {
				t.Errorf("%s of %s: %d bytes allocated for %d", kind.name, element, got, len(b))
			}
		}
	}
}

func TestCounter(t *testing.T) {
	for text, want := range map[string]counter{
		`{}`:                            {},
		`{"a":1,"b":{"c":null}}`:        {values: 3},
		`{"rows":[{"a":1},null,0,[]]}`:  {values: 2, objects: 4},
		`{"samples":[1,2,"x"]}`:         {values: 4},
		`{"samples":[[1,2],{"a":[1]}]}`: {values: 4, objects: 3},
		`{"Samples":[1,2]}`:             {values: 1, objects: 2},
		`[1,[2,"a\"[{"]]`:               {objects: 4},
	} {
		c := counter{dec: json.NewDecoder(strings.NewReader(text))}
		if err := c.value(false); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if c.values != want.values || c.objects != want.objects {
			t.Errorf("%s: %d values, %d objects, want %d and %d", text, c.values, c.objects, want.values, want.objects)
		}
	}
	c := counter{dec: json.NewDecoder(strings.NewReader(`{"samples":[` + strings.Repeat("0,", maxValues) + `0]}`))}
	if err := c.value(false); err == nil || !strings.Contains(err.Error(), "more than 5000000 JSON values") {
		t.Error(err)
	}
}
