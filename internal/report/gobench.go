package report

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// GoBench writes a record in the Go benchmark format (golang.org/design/14313-
// benchmark-format), one line per row and round, for benchstat and its like.
// Units are ns/pkt and Mpps. Rows without a number are comments.
//
// benchstat puts records of different machines in different tables; with
// -ignore kernel,compiler and so on it compares across them. It pairs nothing
// and corrects nothing: unthunk compare does.
func GoBench(w io.Writer, doc *record.Document[record.BenchRow]) error {
	var b bytes.Buffer
	config := func(key, value string) {
		if value = strings.Join(strings.Fields(cells.Clean(value)), " "); value != "" {
			fmt.Fprintf(&b, "%s: %s\n", key, value)
		}
	}
	config("goos", runtime.GOOS)
	config("goarch", runtime.GOARCH)
	config("cpu", doc.Host.CPU)
	config("microcode", doc.Host.Microcode)
	config("kernel", doc.Host.Kernel)
	config("compiler", doc.Host.Compiler)
	config("indirect-thunk", doc.Host.IndirectThunk)
	config("return-thunk", doc.Host.ReturnThunk)
	config("call-sites", doc.Host.CallSites)
	config("governor", doc.Host.Governor)
	fmt.Fprint(&b, "Unit ns/pkt better=lower assume=nothing\nUnit Mpps better=higher assume=nothing\n\n")
	for _, row := range doc.Rows {
		// A name of the format has no white space and begins with an
		// upper-case letter.
		name := "BenchmarkXDP/scenario=" + strings.Join(strings.Fields(cells.Clean(row.Name)), "_")
		if row.Refused != "" {
			fmt.Fprintf(&b, "# %s refused: %s\n", name, strings.Join(strings.Fields(cells.Clean(row.Refused)), " "))
			continue
		}
		for _, ns := range row.Samples {
			fmt.Fprintf(&b, "%s 1 %s ns/pkt %s Mpps\n", name, digits(ns), digits(1e3/ns))
		}
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write benchmarks: %w", err)
	}
	return nil
}

func digits(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }
