package report

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/host"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	findings := []host.Finding{
		{Name: "cpu", Found: "AMD EPYC", Level: host.LevelOK, Means: "the kernel chose by it"},
		{Name: "indirect-call", Found: "retpoline: __x86_indirect_thunk_rax is a long story that needs two lines",
			Level: host.LevelWarn,
			Means: "every indirect call is mispredicted on purpose, and this sentence wraps too", Do: "raise the bulk"},
		{Name: "vulnerability-spec-rstack-overflow", Found: "Vulnerable: Safe RET, no microcode",
			Level: host.LevelNote},
		{Name: "vulnerability-mds", Found: "Not affected", Level: host.LevelOK},
		{Name: "bpf-jit-harden", Found: "not seen: it needs root", Level: host.LevelUnknown},
		{Name: "vulnerability-tsa", Found: "Not affected", Level: host.LevelOK},
	}
	fp := host.Fingerprint{IndirectThunk: "retpoline", ReturnThunk: "ret", CallSites: "through thunks"}
	var b bytes.Buffer
	if err := Check(&b, Options{}, fp, findings, false); err != nil {
		t.Fatal(err)
	}
	want := `! costs packets or makes numbers unsteady ? not seen · worth knowing when two
machines are compared

! indirect-call     retpoline: __x86_indirect_thunk_rax is a long story that
                    needs two lines
                    → every indirect call is mispredicted on purpose, and this
                      sentence wraps too
                    do: raise the bulk

? bpf-jit-harden    not seen: it needs root

· spec-rstack-overflow
                    Vulnerable: Safe RET, no microcode

  cpu               AMD EPYC
  not-affected      mds, tsa

In memory: indirect calls through thunks, thunk: retpoline, returns: ret. 1
warning (!), 1 note (·), 1 not seen (?).
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	if err := Check(&b, Options{}, fp, findings, true); err != nil || !strings.Contains(b.String(), "→ the kernel chose by it") {
		t.Errorf("verbose: error %v, %s", err, b.String())
	}
	for _, width := range []int{1, 60, 80, 120} {
		b.Reset()
		if err := Check(&b, Options{Width: width}, fp, findings, false); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > max(width, 60) {
				t.Errorf("width %d: %d columns: %s", width, n, line)
			}
		}
		if strings.Contains(b.String(), "\x1b") {
			t.Error("color was not asked for")
		}
	}
	b.Reset()
	hostile := []host.Finding{{Name: "nic-\x1b[2J", Found: "\x1b[31m", Means: "\x07", Do: "a\rb"}}
	if err := Check(&b, Options{}, fp, hostile, false); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\x07\r") {
		t.Errorf("control characters reach the terminal: %q", b.String())
	}
	b.Reset()
	if err := Check(&b, Options{Color: true}, host.Fingerprint{}, findings, false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "\x1b[33m! indirect-call") ||
		strings.Count(b.String(), "\x1b[3")+strings.Count(b.String(), "\x1b[2m") != strings.Count(b.String(), "\x1b[0m") {
		t.Error("color is missing or does not end")
	}
}
