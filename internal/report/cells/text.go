package cells

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Clean makes a string from a record safe for a terminal.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return visible(r)
	}, strings.ToValidUTF8(s, "�"))
}

// CleanLines makes text that others wrote safe for a terminal: control characters but
// newlines and tabs become visible.
func CleanLines(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return visible(r)
	}, strings.ToValidUTF8(s, "�"))
}

// visible stands for a control character, and for one that changes the order of others.
func visible(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '�'
}

// Join joins the parts that are not empty.
func Join(with string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), with)
}

// Plural is how many there are: "1 row", "2 rows".
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// SplitBulk takes the bulk size out of a row's name: the rest is the heading rows
// of a ladder share.
func SplitBulk(name string) (heading, bulk string) {
	var rest []string
	for _, part := range strings.Split(Clean(name), "/") {
		if b, ok := strings.CutPrefix(part, "bulk="); ok && bulk == "" {
			bulk = b
			continue
		}
		rest = append(rest, part)
	}
	return strings.Join(rest, "/"), bulk
}
