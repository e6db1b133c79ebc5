package record

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestText(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		most int
		want string
	}{
		{"", 5, ""},
		{"\t return 1; ", 20, "return 1;"},
		{"a\tb\x1b[2Jc\u202ed\x7f", 20, "a?b?[2Jc?d?"},
		{"a\xffb", 5, "a?b"},
		{"12345", 5, "12345"},
		{"123456", 5, "1234…"},
		{"äöüß€ñ", 5, "äöüß…"},
		{"123  6", 5, "123…"},
		{"1234 ", 4, "123…"},
	} {
		if got := Text(test.text, test.most, '?'); got != test.want {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
	}
}

// Of a text of megabytes, which many places of a program may have, no copy is made.
func TestTextLong(t *testing.T) {
	long := strings.Repeat("é\x00", 1<<20)
	testutil.Allocates(t, 16<<10, func() {
		for range 8 {
			if got := Text(long, 300, ' '); len([]rune(got)) != 300 {
				t.Errorf("%q", got)
			}
		}
	})
}

// Names of any bytes and of any length are names of a record, and two stay two.
func TestName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "eth0", "é|x", strings.Repeat("x", maxPart)} {
		if got := Name(name); got != name {
			t.Errorf("%q became %q", name, got)
		}
	}
	seen := make(map[string]string)
	for _, name := range []string{
		"d\u009b2Jq", "d\u202e2Jq", "d?2Jq", "v\xffq", "v\xfeq", "v\ufffdq", strings.Repeat("x", maxPart+1), strings.Repeat("x", maxPart+2),
		strings.Repeat("日", maxPart), strings.Repeat("日", maxPart) + "a", strings.Repeat("\x00", 5000),
	} {
		got := Name(name)
		if len(got) > maxPart || !plain(got) || got == "" {
			t.Errorf("%.40q became %q", name, got)
		}
		if other, taken := seen[got]; taken {
			t.Errorf("%.40q and %.40q are both %q", name, other, got)
		}
		seen[got] = name
	}
	if got := Name("d\u009b2Jq"); !strings.HasPrefix(got, "d?2Jq#") {
		t.Errorf("it does not begin as it did: %q", got)
	}
}
