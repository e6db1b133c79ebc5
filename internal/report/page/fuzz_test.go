package page

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

// fields are the settable strings, numbers, lists and pointers of a value, in order.
func fields(v reflect.Value, into *[]reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.CanSet() {
			*into = append(*into, v)
		}
		if !v.IsNil() {
			fields(v.Elem(), into)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fields(v.Field(i), into)
			}
		}
	case reflect.Slice:
		*into = append(*into, v)
		for i := range v.Len() {
			fields(v.Index(i), into)
		}
	case reflect.String, reflect.Float64, reflect.Int, reflect.Uint64, reflect.Bool:
		if v.CanSet() {
			*into = append(*into, v)
		}
	}
}

// change makes v something else, of s or x.
func change(v reflect.Value, s string, x float64) {
	switch v.Kind() {
	case reflect.Pointer:
		v.SetZero()
	case reflect.Slice:
		v.SetLen(v.Len() * int(uint(len(s))%3) / 2)
	case reflect.String:
		v.SetString(s)
	case reflect.Float64:
		v.SetFloat(x)
	case reflect.Int:
		v.SetInt(int64(len(s)) - 3)
	case reflect.Uint64:
		v.SetUint(uint64(len(s)))
	case reflect.Bool:
		v.SetBool(!v.Bool())
	}
}

// documentIn is what a record was read from.
func documentIn(s *record.Saved) any {
	for _, doc := range []any{s.Bench(), s.Tax(), s.Profile(), s.Sites(), s.Lab(), s.Comparison(),
		s.ProfileComparison(),
		s.SiteComparison(), s.LabComparison()} {
		if !reflect.ValueOf(doc).IsNil() {
			return doc
		}
	}
	return nil
}

// Whatever is a record makes a page that is no more than its text: a few fields of one
// are something else each time.
func FuzzPage(f *testing.F) {
	var texts [][]byte
	for i, s := range everyRecord(f) {
		b, err := json.Marshal(documentIn(s))
		if err != nil {
			f.Fatal(err)
		}
		texts = append(texts, b)
		f.Add(uint8(i), uint8(2), uint64(i), reporttest.Evil, 0.0)
		f.Add(uint8(i), uint8(9), uint64(7*i), "x", 1e9)
	}
	f.Fuzz(func(t *testing.T, which, changes uint8, seed uint64, text string, x float64) {
		b := texts[int(which)%len(texts)]
		s, err := record.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(seed, 1))
		for range changes % 12 {
			var all []reflect.Value
			fields(reflect.ValueOf(documentIn(s)), &all)
			change(all[r.IntN(len(all))], text, x)
		}
		if b, err = json.Marshal(documentIn(s)); err != nil {
			return
		}
		if s, err = record.Parse(b); err != nil {
			return
		}
		s.File = text
		d := Source{Records: []*record.Saved{s}, Version: text}
		var out bytes.Buffer
		if err := HTML(t.Context(), &out, d); err != nil {
			t.Fatal(err)
		}
		page := out.String()
		for _, may := range []string{"http://", "https://", "NaN", "Infinity", "%!", "javascript:"} { // as text
			if strings.Contains(text, may) {
				page = strings.ReplaceAll(page, may, "")
			}
		}
		checkHTML(t, []byte(page))
		out.Reset()
		if err := Markdown(t.Context(), &out, d); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		if err := CSV(t.Context(), &out, d); err != nil {
			t.Fatal(err)
		}
		readCSV(t, out.Bytes())
	})
}
