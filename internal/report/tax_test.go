package report

import (
	"bytes"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
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
