package cells

import (
	"testing"

	"github.com/unthunk/unthunk/internal/record"
)

func TestMade(t *testing.T) {
	for want, row := range map[string]record.SiteRow{
		"call thunk":                             {Kind: "thunk"},
		"jmp register":                           {Kind: "register", Jump: true},
		"call its-thunk behind fineibt-paranoid": {Kind: "its-thunk", Check: "fineibt-paranoid"},
	} {
		if got := Made(row); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestChecks(t *testing.T) {
	plain, kcfi := record.SiteRow{Kind: "thunk"}, record.SiteRow{Kind: "thunk", Check: "kcfi", Loads: 1}
	fineibt := record.SiteRow{Kind: "register", Check: "fineibt", Preamble: 3}
	for want, rows := range map[string][]record.SiteRow{
		"": {plain},
		"CFI checks the target of 2 of 3 branches: kcfi at 2. 2 of them load from the text of what they call.": {plain, kcfi, kcfi},
		"CFI checks the target of 2 of 2 branches: fineibt at 1, kcfi at 1. 1 of them load from the text of what they call." +
			" What is called runs up to 3 instructions more before its first.": {kcfi, fineibt},
	} {
		if got := Checks(rows); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
