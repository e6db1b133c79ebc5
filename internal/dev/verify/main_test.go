package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestRun(t *testing.T) {
	t.Parallel()
	attr := func(test, result string) string {
		return `{"Action":"attr","Package":"` + testutil.Package("internal/tax") + `","Test":"` + test +
			`","Key":"verify","Value":"` + strings.ReplaceAll(result, `"`, `\"`) + `"}` + "\n"
	}
	const head = "a machine\n\n| check | what must hold | measured | outcome |\n|---|---|---|---|\n"
	pass := attr("TestVerifySum", `{"Claim":"it adds up","Figure":"1 %","Outcome":"passed"}`)
	busy := attr("TestVerifyCall",
		`{"Claim":"it costs","Figure":"9 ns","Outcome":"not judged","Why":"the machine was busy: x"}`)
	fail := attr("TestVerifyCall", `{"Claim":"it costs","Figure":"9 ns","Outcome":"failed"}`) +
		`{"Action":"output","Package":"p","Test":"TestVerifyCall","Output":"failed: it costs: 9 ns\n"}` + "\n" +
		`{"Action":"fail","Package":"p","Test":"TestVerifyCall"}` + "\n"
	for _, tt := range []struct {
		name, in, out string
		code          int
	}{
		{"pass", pass + busy, head + "| internal/tax Sum | it adds up | 1 % | passed |\n" +
			"| internal/tax Call | it costs | 9 ns | not judged (the machine was busy: x) |\n" +
			"\n1 passed, 0 failed, 1 not judged\n", 0},
		{"fail", fail, head +
			"| internal/tax Call | it costs | 9 ns | failed |\n\n0 passed, 1 failed, 0 not judged\n\nfailed: it costs: 9 ns\n", 1},
		{"nothing", "", head + "\n0 passed, 0 failed, 0 not judged\n", 1},
		{"no test", "pattern ./x: no such directory\n", head +
			"\n0 passed, 0 failed, 0 not judged\n\npattern ./x: no such directory\n", 1},
		{"another attribute", `{"Action":"attr","Key":"other","Value":"{"}` + "\n" + pass, head +
			"| internal/tax Sum | it adds up | 1 % | passed |\n\n1 passed, 0 failed, 0 not judged\n", 0},
		{"hostile", attr("TestVerifySum", `{`), "verify: read result of TestVerifySum: unexpected end of JSON input\n", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if code := run(strings.NewReader(tt.in), &out, "a machine"); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if diff := cmp.Diff(tt.out, out.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}
