package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

// FuzzIndented: what is laid out is what package json makes of it, to the byte.
func FuzzIndented(f *testing.F) {
	for _, text := range []string{
		`{}`, `[]`, `null`, `-1.5e3`, `"a\"\\b"`, `[[],{},[1,2,[3]],{"a":{"b":[true,null,"x,]}:"]}}]`, "{\"\u202e\":\"\U000e0001\u009b\"}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var compact, want bytes.Buffer
		if json.Compact(&compact, text) != nil || json.Indent(&want, compact.Bytes(), "", "  ") != nil {
			return
		}
		wanted := append(EscapeJSON(want.Bytes()), '\n')
		got, err := indented(compact.Bytes(), len(wanted))
		if err != nil || !bytes.Equal(got, wanted) {
			t.Errorf("%q became %q, %v, want %q", text, got, err, wanted)
		}
		if _, err := indented(compact.Bytes(), len(wanted)-1); !errors.Is(err, errSize) {
			t.Errorf("%q: one byte less: %v", text, err)
		}
	})
}

// A byte that is no UTF-8 would be three in memory.
func TestNotUTF8(t *testing.T) {
	t.Parallel()
	text := []byte(`{"schema":"unthunk/1","kind":"bench","run":"x` + "\xff" + `","rows":[]}`)
	if err := new(Together).fits(text); !errors.Is(err, errNotUTF8) {
		t.Errorf("fits: %v", err)
	}
	if _, err := Vet(text, *recordLimits); !errors.Is(err, errNotUTF8) {
		t.Errorf("Vet: %v", err)
	}
}

// What a page would have to escape takes one byte in a record.
func TestEncodeShort(t *testing.T) {
	t.Parallel()
	b, err := Encode(map[string]string{"a": "<&>"})
	if want := "{\n  \"a\": \"<&>\"\n}\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v, want %q", b, err, want)
	}
}
