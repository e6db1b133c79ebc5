package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

// all are the documents of a stream.
func all(t testing.TB, text []byte) (docs [][]byte) {
	t.Helper()
	stream := newDocuments(bytes.NewReader(text))
	for {
		doc, err := stream.next()
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, doc)
	}
}

func TestDocuments(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                nil,
		"\n\n \n":                         nil,
		"{}":                              {"{}"},
		"{}\n{}\n":                        {"{}\n", "{}\n"},
		"{\n \"a\": {\n }\n}\n{\n}\n":     {"{\n \"a\": {\n }\n}\n", "{\n}\n"},
		"{\n \"a\": 1\n{\n}\n":            {"{\n \"a\": 1\n", "{\n}\n"},
		"{\n \"a\": 1\nlog\nmore\n{}\n":   {"{\n \"a\": 1\n", "log\n", "{}\n"},
		"log\n\n{}\nlog\nlog\n":           {"log\n", "{}\n", "log\n"},
		"{\r\n\"a\": 1,\r\n\"b\": 2\r\n}": {"{\r\n\"a\": 1,\r\n\"b\": 2\r\n}"},
		"{\n[\n],\n}":                     {"{\n[\n],\n}"},
	} {
		var got []string
		for _, doc := range all(t, []byte(text)) {
			got = append(got, string(doc))
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	long := strings.Repeat("x", maxRecord+5)
	docs := all(t, []byte("{\""+long+"\n{}\n"+"{\n \""+long+"\",\n \""+long+"\"\n}\n{}\n"))
	if len(docs) != 4 || len(docs[0]) != maxRecord+1 || len(docs[2]) > 2*maxRecord || string(docs[3]) != "{}\n" {
		t.Errorf("%d documents", len(docs))
	}
}

// Whatever a stream has, its documents are pieces of it in order, of limited size, and what becomes an entry of the store is
// JSON on one line whose numbers and texts have limits.
func FuzzDocuments(f *testing.F) {
	real, err := os.ReadFile("testdata/agent.json")
	if err != nil {
		f.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, real, "", "  "); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("{\n \"a\": 1\nlog\n{}\n"))
	f.Add(indented.Bytes())
	f.Add(append(bytes.Clone(real[:700]), indented.Bytes()...))
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 64<<10 {
			return
		}
		testutil.Allocates(t, uint64(8<<20+400*len(text)), func() {
			docs := all(t, text)
			rest := text
			for _, doc := range docs {
				at := bytes.Index(rest, doc)
				if at < 0 || len(doc) == 0 || len(doc) > maxRecord+1 {
					t.Fatalf("%q is no piece of what is left, or too long", doc)
				}
				rest = rest[at+len(doc):]
				e, err := newEntry(doc, now)
				if err != nil {
					if _, ok := errors.AsType[*refusal](err); !ok || strings.Contains(err.Error(), "\n") {
						t.Fatalf("%v is no refusal of one line", err)
					}
					continue
				}
				if !json.Valid(e.doc) || bytes.ContainsRune(e.doc, '\n') || len(e.machine) != 32 || e.at < 0 ||
					len(e.setup.calls) > maxCalls {
					t.Fatalf("impossible entry %+v", e)
				}
			}
		})
	})
}
