package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// event is one line of go test -json; see go doc test2json and go help
// buildjson.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// test is a test that has begun, or with an empty name its package.
type test struct {
	output []string
	// ended is the last action: "pass", "fail", "skip", or empty. Benchmarks
	// that pass have none.
	ended string
	// parent is set when it has subtests.
	parent bool
}

type key struct{ pkg, name string }

type summary struct {
	mu       sync.Mutex // guards all below
	w        io.Writer
	packages int
	passed   int
	failed   int
	skipped  map[string]int // by reason
	tests    map[key]*test
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, skipped: make(map[string]int), tests: make(map[key]*test)}
}

// read takes events until the end of r. Lines that are no event are printed as
// they are. Several may read at the same time, of different packages.
func (s *summary) read(r io.Reader) error {
	br := bufio.NewReader(r)
	begun := make(map[string]bool)
	for {
		line, err := br.ReadString('\n')
		if line != "" {
			s.takeLine(line, begun)
		}
		if errors.Is(err, io.EOF) {
			s.unfinished(begun)
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test output: %w", err)
		}
	}
}

// takeLine takes one line, and notes the packages that have begun and not ended.
func (s *summary) takeLine(line string, begun map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		fmt.Fprint(s.w, line)
		return
	}
	s.take(e)
	if e.Package == "" {
		return
	}
	begun[e.Package] = true
	if e.Test == "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
		delete(begun, e.Package)
	}
}

func (s *summary) take(e event) {
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.w, e.Output)
		return
	case "build-fail":
		return // the package's own fail event follows
	}
	t := s.at(e.Package, e.Test)
	switch e.Action {
	case "run":
		if i := strings.LastIndexByte(e.Test, '/'); i >= 0 {
			s.at(e.Package, e.Test[:i]).parent = true
		}
	case "output":
		if !framing(e.Output) {
			t.output = append(t.output, e.Output)
		}
	case "pass", "fail", "skip":
		t.ended = e.Action
		if e.Test == "" {
			s.endPackage(e.Package)
		} else if e.Action == "fail" {
			s.flush(t)
		}
	}
}

func (s *summary) at(pkg, name string) *test {
	k := key{pkg, name}
	if s.tests[k] == nil {
		s.tests[k] = new(test)
	}
	return s.tests[k]
}

// framing tells the lines that only go test -v prints.
func framing(line string) bool {
	for _, p := range []string{"=== RUN", "=== PAUSE", "=== CONT", "=== NAME", "=== ATTR"} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

func (s *summary) flush(t *test) {
	for _, line := range t.output {
		fmt.Fprint(s.w, line)
	}
	t.output = nil
}

// endPackage prints a package's result and counts its tests.
func (s *summary) endPackage(pkg string) {
	s.packages++
	p := s.at(pkg, "")
	names := make([]string, 0)
	for k := range s.tests {
		if k.pkg == pkg && k.name != "" {
			names = append(names, k.name)
		}
	}
	slices.Sort(names)

	before := s.failed
	failedBelow := make(map[string]bool)
	for _, name := range slices.Backward(names) { // subtests before their parents
		t := s.tests[key{pkg, name}]
		failed := t.ended == "fail" || t.ended == "" && p.ended == "fail" && s.broke(t)
		switch {
		case failed:
			if !failedBelow[name] {
				s.failed++
			}
			for i := range name {
				if name[i] == '/' {
					failedBelow[name[:i]] = true
				}
			}
			s.flush(t)
		case t.ended == "skip":
			s.skipped[reason(t.output)]++
		case t.parent:
		default:
			s.passed++
		}
		delete(s.tests, key{pkg, name})
	}
	if p.ended == "fail" && s.failed == before {
		s.failed++ // it did not build, or TestMain failed
	}
	for _, line := range p.output {
		if p.ended == "fail" || strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "? ") {
			fmt.Fprint(s.w, line)
		}
	}
	delete(s.tests, key{pkg, ""})
}

var benchmarkLine = regexp.MustCompile(`\s\d+\s.* ns/op`)

// broke tells of a test without a result in a failed package whether it was
// running when the package ended. Benchmarks that passed printed a figure.
func (s *summary) broke(t *test) bool {
	return !t.parent && !slices.ContainsFunc(t.output, benchmarkLine.MatchString)
}

// unfinished counts packages whose result never came.
func (s *summary) unfinished(begun map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pkg := range slices.Sorted(maps.Keys(begun)) {
		s.at(pkg, "").ended = "fail"
		s.endPackage(pkg)
		fmt.Fprintf(s.w, "FAIL\t%s [no result]\n", pkg)
	}
}

var position = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// reason returns what a skipped test says is missing, or else the last thing it
// said.
func reason(output []string) string {
	last := "no reason given"
	for _, line := range output {
		loc := position.FindString(line)
		if loc == "" {
			continue
		}
		// An error that is logged before it may say that something "is missing: …".
		if last = strings.TrimSpace(line[len(loc):]); strings.HasPrefix(last, "missing: ") {
			return last
		}
	}
	return last
}

func (s *summary) print() {
	skipped := 0
	for _, n := range s.skipped {
		skipped += n
	}
	if s.packages == 0 {
		fmt.Fprintln(s.w, "no test ran")
	}
	fmt.Fprintf(s.w, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, skipped)
	reasons := slices.SortedFunc(maps.Keys(s.skipped), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.skipped[b], s.skipped[a]), cmp.Compare(a, b))
	})
	for _, r := range reasons {
		fmt.Fprintf(s.w, "\t%d %s\n", s.skipped[r], r)
	}
}
