package page

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/compare"
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
	for _, doc := range []any{s.Bench(), s.Tax(), s.Profile(), s.Sites(), s.Lab(), s.Programs(), s.Agent(), s.ProgXray(), s.ProgWatch(),
		s.Comparison(), s.ProfileComparison(),
		s.SiteComparison(), s.LabComparison()} {
		if !reflect.ValueOf(doc).IsNil() {
			return doc
		}
	}
	return nil
}

// cut leaves what makes a small page: the first few of each list.
func cut(doc any) {
	var all []reflect.Value
	fields(reflect.ValueOf(doc), &all)
	for _, v := range all {
		if v.Kind() == reflect.Slice && v.Len() > 2 {
			v.SetLen(2)
		}
	}
}

// scanHTML returns an error when a page is not well formed, or has an element or an
// attribute that the template does not have. It is checkHTML in a tenth of the time: it
// knows only what the page may be.
func scanHTML(page string) error {
	for _, own := range []string{pageStyle, flameScript} {
		before, after, ok := strings.Cut(page, own)
		if !ok {
			return errors.New("the page has not its own style and script")
		}
		page = before + after
	}
	for _, not := range []string{"http://", "https://", "NaN", "Infinity", "%!", "\x1b", "javascript:"} {
		if i := strings.Index(page, not); i >= 0 {
			return fmt.Errorf("the page has %q: %.200q", not, page[max(0, i-80):])
		}
	}
	_, rest, _ := strings.Cut(page, "<!doctype html>")
	var open []string
	scripts := 0
	ids := make(map[string]bool)
	for {
		text, tag, ok := strings.Cut(rest, "<")
		if strings.Contains(text, ">") {
			return fmt.Errorf("a > in text: %.200q", text)
		}
		if !ok {
			break
		}
		if end, isEnd := strings.CutPrefix(tag, "/"); isEnd {
			var name string
			if name, rest, ok = strings.Cut(end, ">"); !ok || len(open) == 0 || open[len(open)-1] != name {
				return fmt.Errorf("</%.20s ends %q", end, open)
			}
			open = open[:len(open)-1]
			continue
		}
		n := strings.IndexAny(tag, " />")
		if n < 0 {
			return fmt.Errorf("no tag: <%.100s", tag)
		}
		name, attributes := tag[:n], tag[n:]
		allowed, ok := elements[name]
		if !ok {
			return fmt.Errorf("element %.20q", name)
		}
		for strings.HasPrefix(attributes, " ") {
			attribute, after, _ := strings.Cut(attributes[1:], `="`)
			value, after, ok := strings.Cut(after, `"`)
			switch {
			case !ok || !strings.Contains(" "+allowed+" ", " "+attribute+" "):
				return fmt.Errorf("attribute %.60q of %s", attribute, name)
			case attribute == "href" && !strings.HasPrefix(value, "#") && value != "data:,":
				return fmt.Errorf("a link to %s", value)
			case attribute == "id" && ids[value]:
				return fmt.Errorf("id %s occurs twice", value)
			case attribute == "id":
				ids[value] = true
			}
			attributes = after
		}
		switch {
		case strings.HasPrefix(attributes, "/>"):
			rest = attributes[2:]
		case strings.HasPrefix(attributes, ">"):
			rest = attributes[1:]
			if name == "script" {
				scripts++
			}
			if name != "meta" && name != "link" {
				open = append(open, name)
			}
		default:
			return fmt.Errorf("no end of the tag <%.200s", tag)
		}
	}
	if len(open) > 0 || scripts != 1 {
		return fmt.Errorf("%d scripts, and open at the end: %q", scripts, open)
	}
	return nil
}

// scanHTML takes every page that checkHTML takes, and finds what is no text.
func TestScanHTML(t *testing.T) {
	var out bytes.Buffer
	if err := HTML(t.Context(), &out, Source{Records: everyRecord(t)}); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	checkHTML(t, out.Bytes())
	if err := scanHTML(page); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"<img src=\"x\">", "<b onclick=\"x\">y</b>", "<b>", "</b>", "<a href=\"//x\">y</a>", "<b class=x>y</b>",
		"<script>x</script>", "<", ">", "javascript:", "<p id=\"x\">", "<p class=\"x>",
	} {
		if err := scanHTML(strings.Replace(page, "<h2", bad+"<h2", 1)); err == nil {
			t.Errorf("%s is not found", bad)
		}
	}
}

// Whatever is a record makes a page that is no more than its text: a few fields of one
// are something else each time. The records are small, and what was changed is put back
// afterwards, as reading one takes longer than its page.
func FuzzPage(f *testing.F) {
	// Without this a third of the time is the collector's: what stays is small, and collected every few pages.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	var docs []any
	var changed [][]reflect.Value // the fields of each
	kernels := reporttest.Traced()
	for i := range kernels.Rows {
		kernels.Rows[i].Trace = nil // of which a part is no trace
	}
	for i, s := range append(everyRecord(f), savedAs(f, "kernels.json", kernels)) {
		doc := documentIn(s)
		cut(doc)
		b, err := json.Marshal(doc)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := record.Parse(b); err != nil {
			f.Fatalf("record %d, cut: %v", i, err)
		}
		var all []reflect.Value
		fields(reflect.ValueOf(doc), &all)
		docs, changed = append(docs, doc), append(changed, all)
		f.Add(uint8(i), uint8(2), uint64(i), reporttest.Evil, 0.0)
		f.Add(uint8(i), uint8(9), uint64(7*i), "x", 1e9)
	}
	f.Fuzz(func(t *testing.T, which, changes uint8, seed uint64, text string, x float64) {
		doc, all := docs[int(which)%len(docs)], changed[int(which)%len(docs)]
		r := rand.New(rand.NewPCG(seed, 1))
		for range changes % 12 {
			v := all[r.IntN(len(all))]
			was := reflect.New(v.Type()).Elem()
			was.Set(v)
			defer func() { v.Set(was) }() // the last first
			change(v, text, x)
		}
		b, err := json.Marshal(doc)
		if err != nil {
			return
		}
		s, err := record.Parse(b)
		if err != nil {
			return
		}
		s.File = text
		d := Source{Records: []*record.Saved{s}, Version: text}
		if l := s.Lab(); l != nil {
			d.Kernels = compare.Kernels([]*record.Lab{l})
		}
		var out bytes.Buffer
		if err := HTML(t.Context(), &out, d); err != nil {
			t.Fatal(err)
		}
		page := out.String()
		if len(page) > MaxPage {
			t.Errorf("%d bytes", len(page))
		}
		for _, may := range []string{"http://", "https://", "NaN", "Infinity", "%!", "javascript:"} { // as text
			// A colon may be the page's own, behind text that ends with "javascript".
			if strings.Contains(text, strings.TrimSuffix(may, ":")) {
				page = strings.ReplaceAll(page, may, "")
			}
		}
		if err := scanHTML(page); err != nil {
			t.Fatal(err)
		}
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
