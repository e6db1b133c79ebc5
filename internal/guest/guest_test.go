package guest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

// These tests run unthunk in guests. They download kernels, so they run only
// when UNTHUNK_GUEST is set, as make test-kernels does.

func needGuests(t *testing.T) {
	t.Helper()
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
}

// newMachine makes a guest of a kernel series, with veth and unthunk as its init.
func newMachine(ctx context.Context, t *testing.T, series string) *Machine {
	t.Helper()
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := Fetch(ctx, cache, series)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{Kernel: kernel, Init: filepath.Join(t.TempDir(), "init"), Modules: []string{"veth"}}
	if err := Build(ctx, testutil.Package("cmd/unthunk"), m.Init); err != nil {
		t.Fatal(err)
	}
	return m
}

// run runs commands in a guest.
func run(ctx context.Context, t *testing.T, m *Machine, commands ...Command) []Result {
	t.Helper()
	begun := time.Now()
	report, err := m.Run(ctx, commands...)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatalf("%v; console:\n%s", err, report.Console)
	}
	t.Logf("%s %s %s: %v", m.Kernel.Release, m.CPU, m.Append, time.Since(begun).Round(100*time.Millisecond))
	return report.Results
}

// boot runs commands of unthunk in a guest, each to its end.
func boot(t *testing.T, series, cpu, cmdline string, commands ...Command) []Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	m := newMachine(ctx, t, series)
	m.CPU, m.Append = cpu, cmdline
	results := run(ctx, t, m, commands...)
	for _, r := range results {
		if r.Err != "" {
			t.Errorf("%v: %s", r.Args, r.Err)
		}
	}
	return results
}

func unthunk(args ...string) Command {
	return Command{Args: append([]string{Self}, args...)}
}

func wantExit(t *testing.T, r Result, code int) {
	t.Helper()
	if r.Exit != code {
		t.Errorf("%s: exit code %d, want %d; stdout:\n%s\nstderr:\n%s", strings.Join(r.Args, " "), r.Exit, code, r.Stdout, r.Stderr)
	}
}

// wantMissing asks for exit code 4 and one line on stderr that matches.
func wantMissing(t *testing.T, r Result, pattern string) {
	t.Helper()
	wantExit(t, r, 4)
	line := string(r.Stderr)
	if strings.Count(line, "\n") != 1 || !regexp.MustCompile(pattern).MatchString(line) {
		t.Errorf("%s: stderr %q, want one line that matches %q", strings.Join(r.Args, " "), line, pattern)
	}
}

// wantJSON asks for one JSON document of the command contract with rows.
func wantJSON(t *testing.T, r Result, kind string) {
	t.Helper()
	var doc struct {
		Schema, Kind string
		Host         map[string]any
		Rows         []struct{ Name string }
		Warnings     *[]any
	}
	if err := json.Unmarshal(r.Stdout, &doc); err != nil {
		t.Errorf("%s: %v; stdout:\n%s", strings.Join(r.Args, " "), err, r.Stdout)
		return
	}
	if doc.Schema != "unthunk/1" || doc.Kind != kind || len(doc.Host) == 0 || len(doc.Rows) == 0 || doc.Warnings == nil {
		t.Errorf("%s: not a %s document; stdout:\n%s", strings.Join(r.Args, " "), kind, r.Stdout)
	}
	if slices.ContainsFunc(doc.Rows, func(row struct{ Name string }) bool { return row.Name == "" }) {
		t.Errorf("%s: a row without a name; stdout:\n%s", strings.Join(r.Args, " "), r.Stdout)
	}
}

func wantText(t *testing.T, r Result, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).Match(r.Stdout) {
		t.Errorf("%s: nothing matches %q; stdout:\n%s", strings.Join(r.Args, " "), pattern, r.Stdout)
	}
}

// TestKernels runs the verbs on kernels with retpolines, as root and not.
func TestKernels(t *testing.T) {
	needGuests(t)
	for _, series := range []string{"6.1", "6.12"} {
		t.Run(series, func(t *testing.T) {
			user, userTax, userProfile := unthunk("bench", "--quick"), unthunk("tax", "--quick"), unthunk("profile", "--quick")
			user.UID, userTax.UID, userProfile.UID = nobody, nobody, nobody
			rs := boot(t, series, "", "",
				unthunk("version"),
				unthunk("check"),
				unthunk("check", "--json"),
				unthunk("bench", "--quick", "--json"),
				unthunk("tax", "--rounds", "1", "--duration", "10s", "--json"),
				user, userTax,
				unthunk("xray", "--json"), unthunk("xray", "--all"),
				unthunk("profile", "--rounds", "2", "--duration", "20s", "--rate", "200", "--json"), userProfile,
			)
			for _, r := range append(rs[:4:4], rs[7:9]...) {
				wantExit(t, r, 0)
			}
			wantText(t, rs[1], `indirect-call +retpoline`)
			wantText(t, rs[1], `return-thunk +none`)
			wantJSON(t, rs[2], "check")
			wantJSON(t, rs[3], "bench")
			wantCounts(t, rs[4])
			wantMissing(t, rs[5], `\broot\b`)
			wantMissing(t, rs[6], `\broot\b`)
			wantJSON(t, rs[7], "xray")
			wantText(t, rs[7], `"name": *"bq_xmit_all[^"]*/net_device_ops.ndo_xdp_xmit"`)
			wantText(t, rs[7], `"veth_ndo_xdp_xmit"`)
			wantText(t, rs[7], `"name": *"__napi_poll/napi_struct.poll"`)
			wantText(t, rs[8], `retpoline +[0-9]{4}`)
			wantUnsure(t, rs[9])
			wantJSON(t, rs[9], "profile")
			wantText(t, rs[9], `"xdp_do_redirect"`)
			wantText(t, rs[9], `"bpf_prog_[0-9a-f]{16}_redirect_map"`)
			wantText(t, rs[9], `"net_device_ops.ndo_xdp_xmit"|ndo_xdp_xmit"`)
			wantMissing(t, rs[10], `\broot\b`)
		})
	}
}

// notMeasured is what tax says of a pair that it can price anywhere but on an emulated CPU.
const notMeasured = "not measured: the CPU is emulated"

// wantCounts asks for rows of tax that have no price, as the CPU is emulated, but the branch that
// the code has and what a packet makes of calls.
func wantCounts(t *testing.T, r Result) {
	t.Helper()
	wantExit(t, r, 1)
	wantJSON(t, r, "tax")
	var doc struct {
		Rows []struct {
			Name, Premise, Refused string
			Price                  *struct{ Median float64 }
			PerPacket              *struct{ Median float64 } `json:"per-packet"`
		}
	}
	if err := json.Unmarshal(r.Stdout, &doc); err != nil {
		return // wantJSON has said so
	}
	for _, row := range doc.Rows {
		t.Logf("%s: %s", row.Name, row.Premise)
		family, _, _ := strings.Cut(row.Name, "/")
		refused, premise, counted := notMeasured, "", true
		switch family {
		case "map-lookup", "tail-call", "callback", "ndo-xdp-xmit", "tracepoint", "devmap-prog":
			premise = "__x86_indirect_thunk_r"
		case "return-frame":
			refused, counted = "cannot be isolated", false
		case "control", "dispatcher-tree", "direct-call", "run-statistics", "user":
			counted = false
		}
		if !strings.HasPrefix(row.Refused, refused) || !strings.Contains(row.Premise, premise) ||
			row.Price != nil || (row.PerPacket != nil) != counted {
			t.Errorf("%s: premise %q, price %v, calls a packet %v, refused: %s", row.Name, row.Premise, row.Price, row.PerPacket, row.Refused)
		}
	}
}

// wantUnsure asks profile of few rounds, and of so few samples, to show what it has and say that it
// is no answer.
func wantUnsure(t *testing.T, r Result) {
	t.Helper()
	wantExit(t, r, 1)
	if want := "unthunk: no answer: there are too few rounds to know how sure the figures are\n"; string(r.Stderr) != want {
		t.Errorf("%s: stderr %q, want %q", strings.Join(r.Args, " "), r.Stderr, want)
	}
}

// TestNoJIT runs where programs are interpreted: what needs their code says so, and
// the rest goes on.
func TestNoJIT(t *testing.T) {
	needGuests(t)
	for _, series := range []string{"6.1", "6.12"} {
		t.Run(series, func(t *testing.T) {
			rs := boot(t, series, "", "sysctl.net.core.bpf_jit_enable=0",
				unthunk("check"),
				unthunk("tax", "--rounds", "1", "--duration", "10s", "--verbose"),
				unthunk("xray"),
				unthunk("bench", "--quick", "--bulk", "16"),
				unthunk("profile", "--rounds", "1", "--duration", "6s", "--rate", "200"),
				unthunk("tax", "--quick", "--json"),
				unthunk("tax", "--pair", "bpf-prog,devmap-prog,user/retpoline", "--rounds", "1", "--duration", "4s", "--json"),
			)
			for _, i := range []int{0, 2, 3} {
				wantExit(t, rs[i], 0)
			}
			wantText(t, rs[0], `bpf-jit +off`)
			wantExit(t, rs[1], 1)
			wantText(t, rs[1], `bpf-prog .*\n +no price: the JIT is off`)
			wantText(t, rs[1], `ndo-xdp-xmit/bulk=16 .*0\.94\n +no price: not measured.*\n.*\n +found: bq_xmit_all`)
			wantText(t, rs[2], `__bpf_prog_run32 is its`)
			wantUnsure(t, rs[4])
			wantText(t, rs[4], `__bpf_prog_run`)
			wantNoJIT(t, rs[5], 25)
			wantNoJIT(t, rs[6], 3)
		})
	}
}

// wantNoJIT asks for rows of tax without a price: those that are read from the code of programs
// say that the JIT is off, the others that the CPU is emulated.
func wantNoJIT(t *testing.T, r Result, rows int) {
	t.Helper()
	wantExit(t, r, 1)
	wantJSON(t, r, "tax")
	var doc struct {
		Rows []struct {
			Name, Refused string
			Price         *struct{ Median float64 }
		}
	}
	if err := json.Unmarshal(r.Stdout, &doc); err != nil {
		return // wantJSON has said so
	}
	// No row of a whole packet: it is reckoned with the price of bpf-prog.
	if len(doc.Rows) != rows {
		t.Errorf("%d rows, want %d", len(doc.Rows), rows)
	}
	for _, row := range doc.Rows {
		family, _, _ := strings.Cut(row.Name, "/")
		want := notMeasured
		switch family {
		case "control", "bpf-prog", "dispatcher-tree", "map-lookup", "tail-call", "callback", "devmap-prog", "direct-call":
			want = "the JIT is off"
		case "return-frame":
			want = "cannot be isolated"
		}
		if !strings.HasPrefix(row.Refused, want) || row.Price != nil {
			t.Errorf("%s: price %v, refused with %q, want %q", row.Name, row.Price, row.Refused, want)
		}
	}
}

// TestMitigations boots with parameters and CPU models that change what is in
// kernel memory, and asks check for its name.
func TestMitigations(t *testing.T) {
	needGuests(t)
	tests := []struct {
		name, series, cpu, cmdline string
		// What the rows indirect-call, return-thunk and call-sites match.
		indirect, returns, sites string
	}{
		{"retpoline", "6.1", "", "", "^retpoline", "^none", "^through thunks"},
		{"retpoline", "6.12", "", "", "^retpoline", "^none", "^through thunks"},
		{"off", "6.1", "", "spectre_v2=off", "^plain jmp", "^none", "^rewritten to call"},
		{"off", "6.12", "", "spectre_v2=off", "^plain jmp", "^none", "^rewritten to call"},
		{"lfence", "6.1", "", "spectre_v2=retpoline,lfence", "^lfence", "^none", "^rewritten to lfence"},
		{"its-returns", "6.12", "Skylake-Server", "", "^retpoline", "^its_return_thunk", "^through thunks"},
		{"srso", "6.12", "EPYC", "", "^retpoline", "^srso_return_thunk", "^through thunks"},
		{"retbleed", "6.1", "EPYC", "spec_rstack_overflow=off", "^retpoline", "^(zen|retbleed)_return_thunk", "^through thunks"},
		{"retbleed", "6.12", "EPYC", "spec_rstack_overflow=off", "^retpoline", "^retbleed_return_thunk", "^through thunks"},
	}
	for _, tt := range tests {
		t.Run(tt.name+"-"+tt.series, func(t *testing.T) {
			rs := boot(t, tt.series, tt.cpu, tt.cmdline, unthunk("check", "--json"))
			wantExit(t, rs[0], 0)
			var doc struct {
				Rows []struct{ Name, Found string }
			}
			if err := json.Unmarshal(rs[0].Stdout, &doc); err != nil {
				t.Fatalf("%v; stdout:\n%s", err, rs[0].Stdout)
			}
			found := make(map[string]string)
			for _, row := range doc.Rows {
				found[row.Name] = row.Found
			}
			for name, pattern := range map[string]string{
				"indirect-call": tt.indirect, "return-thunk": tt.returns, "call-sites": tt.sites,
				// Of SRSO /sys says "Vulnerable: Safe RET, no microcode".
				"sys-and-memory": "agree|SRSO",
			} {
				if !regexp.MustCompile(pattern).MatchString(found[name]) {
					t.Errorf("%s is %q, want a match of %q", name, found[name], pattern)
				}
			}
		})
	}
}

// TestOldKernel runs on a kernel without live frames in BPF_PROG_TEST_RUN,
// which came with Linux 5.18.
func TestOldKernel(t *testing.T) {
	needGuests(t)
	rs := boot(t, "5.10", "", "", unthunk("check"), unthunk("bench", "--quick"))
	wantExit(t, rs[0], 0)
	wantMissing(t, rs[1], `5\.18`)
}

// TestInit checks the frame itself: exit codes and both streams.
func TestInit(t *testing.T) {
	needGuests(t)
	rs := boot(t, "6.1", "", "", unthunk("version"), unthunk("no-such-verb"))
	wantExit(t, rs[0], 0)
	wantText(t, rs[0], `^unthunk `)
	wantExit(t, rs[1], 2)
	if len(rs[1].Stderr) == 0 {
		t.Error("nothing on stderr")
	}
}
