// Command growth draws how the time of benchmarks grows with the number of machines: it reads what go test -bench writes of
// internal/fleet, and writes an SVG, both axes of which are logarithmic.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("growth", flag.ContinueOnError)
	flags.SetOutput(stderr)
	unit := flags.String("unit", "sec/op", "what is drawn: sec/op, cpu-ms/op, cpu-ms/record; of several with commas the first that there is")
	engine := flags.String("engine", "postgres", "of which database")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return 2
	}
	lines, err := read(stdin, *engine, strings.Split(*unit, ","))
	if err == nil {
		err = draw(stdout, lines)
	}
	if err != nil {
		fmt.Fprintf(stderr, "growth: %v\n", err)
		return 1
	}
	return 0
}

// point is a number of machines, and seconds.
type point struct{ machines, seconds float64 }

// line is a question, or ingest.
type line struct {
	name   string
	points []point
}

// read takes the points of each benchmark from its first unit that is there, by machines.
func read(from io.Reader, engine string, units []string) ([]line, error) {
	all := make(map[string][]point)
	for in := benchfmt.NewReader(from, "stdin"); in.Scan(); {
		result, ok := in.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		name, of := "", make(map[string]string)
		for part := range strings.SplitSeq(string(result.Name), "/") {
			if key, value, ok := strings.Cut(part, "="); ok {
				of[key] = value
				continue
			}
			name = part
		}
		if at := strings.LastIndexByte(name, '-'); at > 0 { // GOMAXPROCS
			name = name[:at]
		}
		machines, err := strconv.ParseFloat(of["machines"], 64)
		if err != nil || of["engine"] != engine {
			continue
		}
		for _, unit := range units {
			x, ok := result.Value(unit)
			if strings.HasPrefix(unit, "cpu-ms/") {
				x /= 1000
			}
			if ok && x > 0 {
				all[name] = append(all[name], point{machines, x})
				break
			}
		}
	}
	var lines []line
	for _, name := range slices.Sorted(maps.Keys(all)) {
		points := all[name]
		slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.machines, b.machines) })
		lines = append(lines, line{name, points})
	}
	if len(lines) == 0 {
		return nil, errors.New("no benchmark of that database has that unit")
	}
	return lines, nil
}

// The drawing, in its units.
const (
	width, height = 720.0, 420.0
	left, right   = 70.0, 90.0
	top, bottom   = 20.0, 50.0
)

var colors = []string{"#1f6feb", "#c4432b", "#2d8a4e", "#8a5cd1", "#b07a00", "#4a6572"}

// draw writes lines, and a dashed one through the first point that grows as the machines do.
func draw(w io.Writer, lines []line) error {
	low, high := point{math.Inf(1), math.Inf(1)}, point{math.Inf(-1), math.Inf(-1)}
	for _, l := range lines {
		for _, p := range l.points {
			low = point{min(low.machines, p.machines), min(low.seconds, p.seconds)}
			high = point{max(high.machines, p.machines), max(high.seconds, p.seconds)}
		}
	}
	decade := func(x float64, round func(float64) float64) float64 { return math.Pow(10, round(math.Log10(x))) }
	low = point{decade(low.machines, math.Floor), decade(low.seconds, math.Floor)}
	high = point{max(decade(high.machines, math.Ceil), 10*low.machines), max(decade(high.seconds, math.Ceil), 10*low.seconds)}
	part := func(x, low, high float64) float64 { return math.Log(x/low) / math.Log(high/low) }
	x := func(machines float64) float64 {
		return left + (width-left-right)*part(machines, low.machines, high.machines)
	}
	y := func(seconds float64) float64 {
		return height - bottom - (height-top-bottom)*part(seconds, low.seconds, high.seconds)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %v %v" `, width, height)
	b.WriteString(`font-family="sans-serif" font-size="12" fill="#57606a"><title>seconds, by machines</title>` + "\n")
	fmt.Fprintf(&b, `<rect width="%v" height="%v" fill="#ffffff"/>`+"\n", width, height)
	for m := low.machines; m <= high.machines*1.01; m *= 10 {
		fmt.Fprintf(&b, `<path d="M%.1f %v V%v" stroke="#d0d7de"/><text x="%.1f" y="%v" text-anchor="middle">%.0f</text>`+"\n",
			x(m), top, height-bottom, x(m), height-bottom+18, m)
	}
	for s := low.seconds; s <= high.seconds*1.01; s *= 10 {
		fmt.Fprintf(&b, `<path d="M%v %.1f H%v" stroke="#d0d7de"/><text x="%v" y="%.1f" text-anchor="end">%g</text>`+"\n",
			left, y(s), width-right, left-8, y(s)+4, math.Round(s*1e9)/1e9)
	}
	fmt.Fprintf(&b, `<text x="%v" y="%v" text-anchor="middle">machines</text><text x="12" y="%v">s</text>`+"\n",
		(left+width-right)/2, height-12, top+4)
	from := lines[0].points[0]
	to := min(high.machines, from.machines*high.seconds/from.seconds)
	fmt.Fprintf(&b, `<path d="M%.1f %.1f L%.1f %.1f" stroke="#57606a" stroke-dasharray="5 4" fill="none"/>`+"\n",
		x(from.machines), y(from.seconds), x(to), y(from.seconds*to/from.machines))
	for i, l := range lines {
		color := colors[i%len(colors)]
		var path []string
		for _, p := range l.points {
			path = append(path, fmt.Sprintf("%.1f %.1f", x(p.machines), y(p.seconds)))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(p.machines), y(p.seconds), color)
		}
		fmt.Fprintf(&b, `<path d="M%s" stroke="%s" stroke-width="2" fill="none"/>`+"\n", strings.Join(path, " L"), color)
		fmt.Fprintf(&b, `<path d="M%.1f %.1f h14" stroke="%s" stroke-width="2"/><text x="%.1f" y="%.1f">%s</text>`+"\n",
			width-right+8, top+16*float64(i)+8, color, width-right+26, top+16*float64(i)+12, html.EscapeString(l.name))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}
