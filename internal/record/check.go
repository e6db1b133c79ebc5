package record

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/stat"
)

// What is wrong with a row's number, whatever its type.
var (
	errNeither   = errors.New("neither a number nor a reason why not")
	errBoth      = errors.New("a number and a reason why there is none")
	errNoSamples = errors.New("a number without samples")
)

func checkSamples(samples []float64, rounds []int, possible func(ns float64) bool) error {
	if len(samples) != len(rounds) {
		return fmt.Errorf("%d samples but %d rounds", len(samples), len(rounds))
	}
	if len(rounds) > MaxRounds {
		return fmt.Errorf("%d rounds: at most %d are possible", len(rounds), MaxRounds)
	}
	for i, x := range samples {
		if !possible(x) {
			return fmt.Errorf("impossible sample of %v ns", x)
		}
		if rounds[i] < 0 || i > 0 && rounds[i] <= rounds[i-1] {
			return fmt.Errorf("round %d is out of order", rounds[i])
		}
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	for name, value := range labels {
		if !plain(name) || !plain(value) {
			return fmt.Errorf("impossible label %.60q", name+"="+value)
		}
	}
	return nil
}

// quantity is one of a row, and what it has to be if it is there.
type quantity struct {
	name, unit string
	*stat.Quantity
	signed bool
}

func checkQuantities(qs []quantity) error {
	for _, q := range qs {
		if q.Quantity == nil {
			continue
		}
		if q.Unit != q.unit {
			return fmt.Errorf("%s is in %.20q, not in %s", q.name, q.Unit, q.unit)
		}
		for _, x := range []float64{q.Median, q.Low, q.High} {
			if !q.signed && x < 0 || math.Abs(x) > maxNs {
				return fmt.Errorf("%s is impossible: %v %s", q.name, x, q.Unit)
			}
		}
		if q.Low > q.Median || q.Median > q.High || q.N < 0 {
			return fmt.Errorf("%s lies outside its interval", q.name)
		}
	}
	return nil
}

// plain reports whether s is a name that can be printed on a terminal as it is.
func plain(s string) bool {
	length := 0
	for _, r := range s { // what is no UTF-8 is U+FFFD, here and in JSON
		length += utf8.RuneLen(r)
	}
	return length <= MaxName && printable(s)
}

// printable reports whether s can be printed on a terminal as it is. What is no UTF-8 becomes U+FFFD in JSON, which can be.
func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// checkMeans is [checkQuantities] for means and differences: the interval of one may reach below
// 0 when it itself cannot.
func checkMeans(qs []quantity) error {
	for i, q := range qs {
		if q.Quantity != nil && !q.signed && q.Median < 0 {
			return fmt.Errorf("%s is impossible: %v %s", q.name, q.Median, q.Unit)
		}
		qs[i].signed = true
	}
	return checkQuantities(qs)
}

// checkNames is for a function and its stage, which both have to be there.
func checkNames(function, stage string) error {
	if function == "" || stage == "" {
		return errors.New("it has no name or no stage")
	}
	return checkTexts([]string{function, stage})
}

func checkTexts(texts []string) error {
	for _, text := range texts {
		if utf8.RuneCountInString(text) > MaxText || !printable(text) {
			return fmt.Errorf("impossible text %.60q", text)
		}
	}
	return nil
}

// checkHost checks a fingerprint, which may have characters that no terminal prints.
func checkHost(f *host.Fingerprint) error {
	for _, field := range f.Fields() {
		for _, text := range []string{field.Name, field.Value} {
			if utf8.RuneCountInString(text) > maxHostText {
				return fmt.Errorf("impossible text %.60q", text)
			}
		}
	}
	return nil
}

// checkRows checks rows that have a name each. names are those that are taken; nil
// for none.
func checkRows[Row any, P interface {
	*Row
	rowName() string
	check() error
}](rows []Row, names map[string]bool) error {

	if n := len(rows); n > MaxRows {
		return errTooMany(n)
	}
	if names == nil {
		names = make(map[string]bool)
	}
	for i := range rows {
		row := P(&rows[i])
		name := row.rowName()
		if name == "" || !plain(name) {
			return fmt.Errorf("row %d: impossible name %.60q", i, name)
		}
		if names[name] {
			return fmt.Errorf("row %s: occurs twice", name)
		}
		names[name] = true
		if err := row.check(); err != nil {
			return fmt.Errorf("row %s: %w", name, err)
		}
	}
	return nil
}

// checkEach checks entries that have a number only: of is what each is.
func checkEach[T any, P interface {
	*T
	check() error
}](of string, entries []T) error {

	for i := range entries {
		if err := P(&entries[i]).check(); err != nil {
			return fmt.Errorf("%s %d: %w", of, i, err)
		}
	}
	return nil
}

func errTooMany(rows int) error {
	return fmt.Errorf("%d rows: at most %d are possible", rows, MaxRows)
}
