package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestTaxGolden(t *testing.T) {
	t.Parallel()
	const sum = "At bulk 16 a redirect makes 0.13 indirect calls at 11.5 ns each."
	for _, test := range []struct {
		name    string
		opts    Options
		verbose bool
		change  func(*record.Document[record.TaxRow])
	}{
		{"tax.txt", Options{Width: 80}, false, nil},
		{"tax-verbose.txt", Options{Width: 80}, true, nil},
		{"tax-60.txt", Options{Width: 60}, false, nil},
		{"tax-incomplete.txt", Options{Width: 80}, false,
			func(doc *record.Document[record.TaxRow]) { doc.Incomplete, doc.Rows = true, doc.Rows[:1] }},
	} {
		t.Run(test.name, func(t *testing.T) {
			doc := reporttest.Tax()
			if test.change != nil {
				test.change(doc)
			}
			var b bytes.Buffer
			if err := Tax(&b, test.opts, doc, sum, test.verbose); err != nil {
				t.Fatal(err)
			}
			reporttest.Fits(t, b.String(), test.opts.Width)
			reporttest.Golden(t, test.name, b.String())
		})
	}
}

// Calls that a program of the user's makes itself are not counted, which is said.
func TestTaxOfProgram(t *testing.T) {
	t.Parallel()
	for prog, want := range map[string]bool{"": false, "lb.o:balancer": true} {
		doc := reporttest.Tax()
		doc.Settings = map[string]string{"prog": prog}
		var b bytes.Buffer
		if err := Tax(&b, Options{Width: 80}, doc, "", false); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(strings.Fields(b.String()), " ")
		if strings.Contains(text, "/pkt has no calls that your program makes itself") != want {
			t.Errorf("prog %q:\n%s", prog, b.String())
		}
	}
}

// On an emulated CPU a pair has no price, but what its code has.
func TestTaxRefusedWithPremise(t *testing.T) {
	t.Parallel()
	doc := reporttest.Tax()
	doc.Rows = doc.Rows[1:2]
	doc.Rows[0].Price, doc.Rows[0].Refused = nil, "not measured: the CPU is emulated"
	for _, verbose := range []bool{false, true} {
		var b bytes.Buffer
		if err := Tax(&b, Options{Width: 80}, doc, "", verbose); err != nil {
			t.Fatal(err)
		}
		const refused, found = "    no price: not measured: the CPU is emulated\n",
			"    found: bpf_map_lookup_elem+0xd: jmp __x86_indirect_thunk_rax\n"
		if !strings.Contains(b.String(), refused) || strings.Contains(b.String(), refused+found) != verbose {
			t.Errorf("verbose %v:\n%s", verbose, b.String())
		}
	}
}

// A price without rounds of its own, as that of the dispatcher's pairs has none, does not claim some.
func TestTaxOfFills(t *testing.T) {
	t.Parallel()
	doc := reporttest.Tax()
	doc.Warnings = nil
	doc.Rows = doc.Rows[:1]
	doc.Rows[0].Name, doc.Rows[0].Note = "bpf-prog", ""
	doc.Rows[0].Cycles = &stat.Quantity{Median: -0.2, Low: -1, High: 1, N: 6, Unit: "cycles"}
	doc.Rows[0].PerPacket = &stat.Quantity{Unit: "calls", N: 1}
	doc.Rows[0].NsPerPacket = &stat.Quantity{Unit: "ns", N: 1}
	var b bytes.Buffer
	if err := Tax(&b, Options{}, doc, "", false); err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{"up to", "-0 ", "0.00"} {
		if strings.Contains(strings.ReplaceAll(b.String(), "[-0.01", ""), not) {
			t.Errorf("%q stands in\n%s", not, b.String())
		}
	}
}
