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
