package record

import "testing"

// Packets have one verdict when at most one in a thousand has another.
func TestOneVerdict(t *testing.T) {
	for _, test := range []struct {
		v    Verdicts
		want string
	}{
		{Verdicts{}, ""},
		{Verdicts{Redirect: 7}, "redirect"},
		{Verdicts{TX: 7}, "tx"},
		{Verdicts{Drop: 7}, "drop"},
		{Verdicts{Pass: 9999, Failed: 1}, "pass"},
		{Verdicts{Pass: 99, Failed: 1}, MixedVerdict},
		{Verdicts{TX: 50, Redirect: 50}, MixedVerdict},
	} {
		if got := test.v.One(); got != test.want {
			t.Errorf("%+v: %q, want %q", test.v, got, test.want)
		}
	}
}
