package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is typed wrong is refused at once, in plain words, with what was probably meant.
func TestWrongWords(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args string
		want string
	}{
		{"bnech", `there is no verb "bnech": did you mean bench?`},
		{"benc", "did you mean bench?"},
		{"gaet --base b.json .", `there is no verb "gaet": did you mean gate?`},
		{"frob", `there is no verb "frob": see unthunk --help`},
		{"help nope", `there is no verb "nope": see unthunk --help`},
		{"help bnech", "did you mean bench?"},
		{"bench --bluk 1", "unknown flag: --bluk: did you mean --bulk?"},
		{"bench --frobnicate", "unknown flag: --frobnicate"},
		{"bench --scenario redirekt", `scenario "redirekt" is not one of`},
		{"bench --scenario redirekt", "did you mean redirect?"},
		{"bench --scenario XDP-TX", "did you mean tx?"},
		{"bench --scenario XDP-REDIRCT", "did you mean redirect?"},
		{"lab debian:6.12-cloud --scenario XDP-DROP", "did you mean drop?"},
		{"profile --scenario redirect-mpa", "did you mean redirect-map?"},
		{"tax --pair bpf-pog", "did you mean bpf-prog?"},
		{"bench --bulk abc", `--bulk "abc" is not a whole number`},
		{"profile --bulk abc", `--bulk "abc" is not a whole number`},
		{"bench --rounds 99999999999999999999", `--rounds "99999999999999999999" is out of range`},
		{"compare a b --threshold abc", `--threshold "abc" is not a number`},
		{"bench --quick=maybe", `--quick "maybe" is not true or false`},
		{"bench --duration 5", `--duration "5" is not a duration such as 7s or 2m`},
		{"profile --bulk 0", "bulk 0 is not within 1 … 256"},
		{"profile --size 0", "--size 0 is too small"},
		{"bench --size 0", "--size 0 is too small"},
		{"bench --cpu 9999", "CPU 9999 is not one of those this process may run on"},
		{"tax --cpu 9999", "CPU 9999"},
		{"profile --cpu 9999", "CPU 9999"},
		{"run --cpu 9999", "CPU 9999"},
		{"forward --in a --out b --batch 100000", "a batch of 100000 is not within 1 … 4096"},
		{"lab debian:6.12-cloud --run frob", `there is no verb "frob"`},
		{"lab debian:6.12-cloud --run bnech", "did you mean bench?"},
		{"lab debian:6.12-cloud --run=bench_--bluk", "did you mean --bulk?"},
		{"lab debian:6.12-cloud --run=check_now", `unexpected argument "now"`},
	} {
		args := strings.Fields(test.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "_", " ")
		}
		code, stdout, stderr := unthunk(t, args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, test.want) ||
			strings.Count(stderr, "\n") != 1 || strings.Contains(stderr, "strconv") {
			t.Errorf("%s: exit code %d, stderr lacks %q on one line:\n%s%s", test.args, code, test.want, stderr, stdout)
		}
	}
}

func TestHelpVerb(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"help"}, {"help", "bench"}, {"bench", "--help"}} {
		code, stdout, stderr := unthunk(t, args...)
		if code != exitDone || stderr != "" || !strings.Contains(stdout, "Usage:") {
			t.Errorf("%v: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
	_, version, _ := unthunk(t, "version")
	if code, stdout, _ := unthunk(t, "--version"); code != exitDone || stdout != version {
		t.Errorf("--version: exit code %d: %s", code, stdout)
	}
}

// What is read is not overwritten, and two outputs do not go into one file.
func TestSameFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	record := saved(t, dir, "a.json", "a", 1, 1)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(record, link); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	overwrites, twice := "would overwrite a file that is read", "write to one file"
	x := filepath.Join(dir, "x")
	web := writeFile(t, "tls_server_config:\n  cert_file: nope.pem\n  key_file: "+record+"\n")
	prom := filepath.Join(t.TempDir(), "unthunk.prom")
	if err := os.WriteFile(prom, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"compare", record, record, "--save", record}, overwrites},
		{[]string{"compare", record, "--by", "operation", "--save", link}, overwrites},
		{[]string{"report", record, "-o", record}, overwrites},
		{[]string{"report", record, "-o", dir + "/../" + filepath.Base(dir) + "/a.json"}, overwrites},
		{[]string{"report", dir, "-o", record}, overwrites},
		{[]string{"history", dir, "--save", record}, overwrites},
		{[]string{"profile", "--svg", x, "--pprof", x}, twice},
		{[]string{"profile", "--folded", x, "--save", dir + "/./x"}, twice},
		{[]string{"forward", "--in", "a", "--out", "b", "--bpf", record, "--pcap", record}, overwrites},
		{[]string{"forward", "--in", "a", "--out", "b", "--metrics", ":0", "--metrics-config", web, "--pcap", web}, overwrites},
		{[]string{"prog", "xray", record + ":f", "--save", record}, overwrites},
		{[]string{"prog", "cost", record, "--packets", "udp4", "--save", link}, overwrites},
		{[]string{"prog", "cost", "id:1", "--packets", record, "--save", record}, overwrites},
		{[]string{"prog", "cost", "id:1", "--packets", "udp4", "--map", "m=" + record, "--save", record}, overwrites},
		{[]string{"prog", "diff", "id:1", record, "--packets", "udp4", "--save", record}, overwrites},
		{[]string{"prog", "diff", "id:1", "id:2", "--packets", record, "--save", record}, overwrites},
		{[]string{"bench", "--prog", record + ":f", "--save", record}, overwrites},
		{[]string{"profile", "--prog", "id:1", "--packets", record, "--svg", record}, overwrites},
		{[]string{"forward", "--in", "a", "--out", "b", "--metrics", ":0", "--metrics-config", web, "--pcap", record}, overwrites},
		{[]string{"forward", "--in", "a", "--out", "b", "--metrics", ":0", "--metrics-config", web, "--pcap", link}, overwrites},
		{[]string{"prog", "watch", "dev:a", "--metrics", ":0", "--metrics-config", web, "--save", web}, overwrites},
		{[]string{"prog", "watch", "dev:a", "--metrics", ":0", "--metrics-config", web, "--pprof", link}, overwrites},
		{[]string{"agent", "--every", "1h", "--listen", ":0", "--metrics-config", prom, "--textfile", filepath.Dir(prom)}, overwrites},
		{[]string{"fleet", "ingest", "--store", record, "--listen", ":0", "--web-config", web}, overwrites},
		{[]string{"fleet", "ingest", "--store", x, "--listen", ":0", "--token-file", x}, overwrites},
	} {
		code, stdout, stderr := unthunk(t, test.args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%v: exit code %d: %s%s", test.args, code, stdout, stderr)
		}
	}
	if after, err := os.ReadFile(record); err != nil || string(after) != string(before) {
		t.Errorf("the record was changed: %v", err)
	}
	if _, err := os.Stat(x); err == nil {
		t.Error("an output was made")
	}
	page := filepath.Join(dir, "report.html")
	for range 2 { // a page in the folder that it is made of is no record
		code, _, stderr := unthunk(t, "report", dir, "-o", page)
		if code != exitDone && !strings.Contains(stderr, "has no") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// What cannot be written is a failure of every verb.
func TestOutputFails(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"help"}, {"check"}, {"completion", "bash"}} {
		var stderr strings.Builder
		code := run(t.Context(), args, nil, fullDisk{}, &stderr)
		if code != exitFailed || strings.Count(stderr.String(), "no space left") != 1 {
			t.Errorf("%v: exit code %d: %s", args, code, &stderr)
		}
	}
}

// Without an error there is none about the values of a flag.
func TestUnknownValueOfNothing(t *testing.T) {
	t.Parallel()
	if err := unknownValue(nil, []string{"tax"}, []string{"tx"}); err != nil {
		t.Errorf("%#v", err)
	}
}
