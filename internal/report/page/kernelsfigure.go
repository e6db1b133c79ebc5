package page

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// kernelsTitle is what the figure shows.
const kernelsTitle = "Instructions and indirect branches a packet, by kernel"

// kernelsFigure draws a bar of instructions for each kernel, by bulk, with its indirect branches beside it. In a file of its own
// it says of which history that is.
func kernelsFigure(id string, h *record.LabHistory, ownFile bool) *figure {
	var said []string
	var high span
	high.add(0)
	rows := 0
	for _, bulk := range h.Bulks {
		for i := range h.Kernels {
			row := h.Kernels[i].Rows[bulk]
			if row == nil {
				continue
			}
			if rows++; rows <= maxPlotted && row.Instructions != nil {
				high.add(*row.Instructions)
				said = append(said, fmt.Sprintf("bulk %s, %s: %s", bulk, row.Version(), kernelValue(row)))
			}
		}
	}
	caption := []string{"Bars are instructions a packet from 0, ◆ indirect branches a packet.", "Of " + kernelTitle(h) + "."}
	if rows > maxPlotted {
		caption[1] += fmt.Sprintf(" And %d more.", rows-maxPlotted)
	}
	return newFigure(id, kernelsTitle, strings.Join(said, "; ")+".", strings.Join(caption, " "), func(d *drawing) {
		const names, values, step = 76, 138, 20.0
		a := axis{0, max(high.high, 1), names, d.width - values}
		y, plotted := 0.0, 0
		if ownFile {
			for _, line := range caption {
				d.fit("soft", 0, y+14, d.width, line)
				y += step
			}
			y += 8
		}
		for _, bulk := range h.Bulks {
			if plotted >= maxPlotted {
				break
			}
			d.text("strong", 0, y+14, "bulk "+bulk)
			y += 20
			for i := range h.Kernels {
				row := h.Kernels[i].Rows[bulk]
				if row == nil || plotted >= maxPlotted {
					continue
				}
				plotted++
				d.fit("end", names-8, y+14, names-8, row.Version())
				if row.Instructions == nil {
					d.fit("soft", names, y+14, d.width-names, cells.Join(": ", "no number", row.Refused))
				} else {
					d.rect("bar", names, y+3, a.x(*row.Instructions)-names, step-6)
					d.fit("", a.x(*row.Instructions)+6, y+14, d.width-a.x(*row.Instructions)-6, kernelValue(row))
				}
				y += step
			}
			y += 8
		}
		d.height = y
	})
}

// kernelValue is what stands beside a kernel's bar.
func kernelValue(row *record.LabRow) string {
	value := fmt.Sprintf("%.1f", *row.Instructions)
	if n := branchesOf(row); n != nil {
		value += "  ◆ " + stat.Exact(*n)
	}
	return value
}

// kernelsFile writes the figure of the first of the histories as a file of its own, in both themes.
func kernelsFile(ctx context.Context, w io.Writer, h *record.LabHistory) error {
	svg := strings.Replace(string(kernelsFigure("kernels", h, true).Wide), "<svg ", `<svg xmlns="http://www.w3.org/2000/svg" `, 1)
	head := strings.Index(svg, "<title")
	if _, err := io.WriteString(w, svg[:head]+"<style>"+figureStyle+"</style><rect class=\"paper\" width=\"100%\" height=\"100%\"/>"+
		svg[head:]+"\n"); err != nil {
		return fmt.Errorf("write figure: %w", err)
	}
	return ctx.Err()
}

// figureStyle is what a figure needs of the page's style, in a file of its own.
const figureStyle = ":root{--paper:#fdfcf9;--ink:#1d1c1a;--soft:#5f5b54;--bar:#2c5a7a}" +
	"@media (prefers-color-scheme:dark){:root{--paper:#15171a;--ink:#e6e3dc;--soft:#a5a097;--bar:#7db1d3}}" +
	"text{font:12px system-ui,Arial,sans-serif;fill:var(--ink)}text.soft{fill:var(--soft)}text.end{text-anchor:end}" +
	"text.strong{font-weight:600}.paper{fill:var(--paper)}.bar{fill:var(--bar)}"
