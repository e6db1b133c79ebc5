package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil/pgserver"
)

// rollout makes the records of 40 machines that there are not: all had kernel 6.12, half of them have 6.18 since yesterday, on
// which a redirect takes 8 % more; one of them has another thunk and a boot parameter of its own, one did not measure.
func rollout() []*record.Agent {
	var all []*record.Agent
	for n := range uint64(40) {
		for _, kernel := range []string{"6.12", "6.18"} {
			if kernel == "6.18" && n < 20 {
				continue
			}
			a := recordtest.Agent(fmt.Sprintf("RUN%d-%s", n, kernel), n, 8+float64(n%7)/10)
			a.Time = time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
			ns := 100 + float64(n%5)
			if kernel == "6.12" {
				a.Time = a.Time.AddDate(0, 0, -7)
			} else {
				ns *= 1.08
			}
			measured := a.Time
			a.Measured, a.Host.Kernel, a.Host.CPU, a.Machine.Name = &measured, kernel, "CPU 0", fmt.Sprintf("edge-%d", n)
			switch {
			case n == 33:
				a.Host.IndirectThunk, a.Host.BootParams = "none", "mitigations=off"
				ns = 70
			case n == 34 && kernel == "6.18":
				a.Rows, a.Redirect, a.Measured = []record.TaxRow{}, []record.BenchRow{}, nil
				a.Refused = []record.AgentRefusal{{Part: "measure", Reason: "load", Text: "a load of 3 a CPU"}}
			}
			for i, factor := range []float64{3, 1, 0.9}[:len(a.Redirect)] {
				a.Redirect[i].Hop = &stat.Quantity{Median: ns * factor, Low: ns*factor - 1, High: ns*factor + 1, N: 7, Unit: "ns"}
			}
			all = append(all, a)
		}
	}
	return all
}

// saveRollout saves the records of [rollout] in a folder for each machine.
func saveRollout(t *testing.T, dir string) {
	t.Helper()
	for _, a := range rollout() {
		folder := filepath.Join(dir, a.Machine.Name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := record.Save(filepath.Join(folder, a.Run+".json"), a); err != nil {
			t.Fatal(err)
		}
	}
}

// Each command of the parts on SQLite and on PostgreSQL of docs/fleet.md runs as it is written, on simulated records.
func TestFleetGuide(t *testing.T) {
	dir := t.TempDir()
	saveRollout(t, filepath.Join(dir, "records"))
	t.Setenv("PATH", filepath.Dir(build(t))+":"+os.Getenv("PATH"))
	guide := guideShell{dir: dir, files: dir}
	for _, line := range guideLines(t, "../../docs/fleet.md", "## From records to who pays, with SQLite", "## With PostgreSQL", 5) {
		t.Run(strconv.Itoa(line.number), func(t *testing.T) { guide.run(t, line.command) })
	}
	if _, err := os.Stat(filepath.Join(dir, "fleet.html")); err != nil {
		t.Error(err)
	}
	server := pgserver.Start(t)
	t.Setenv("PGHOST", "127.0.0.1")
	t.Setenv("PGPORT", strconv.Itoa(server.Port))
	t.Setenv("PGUSER", "fleet")
	for _, line := range guideLines(t, "../../docs/fleet.md", "## With PostgreSQL", "## The questions", 6) {
		t.Run(strconv.Itoa(line.number), func(t *testing.T) { guide.run(t, line.command) })
	}
}

// The exit code of fleet compare says whether canaries are slower; the odd machine is found, with the fields that differ; all
// formats say it.
func TestFleet(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "fleet.db")
	saveRollout(t, filepath.Join(dir, "records"))
	ask := func(code int, args ...string) string {
		t.Helper()
		got, stdout, stderr := unthunk(t, append([]string{"fleet", args[0], "--store", store}, args[1:]...)...)
		if got != code || got != exitDone && got != exitRegression && stderr == "" {
			t.Fatalf("fleet %v: exit code %d, want %d: %s%s", args, got, code, stdout, stderr)
		}
		return stdout + stderr
	}
	if said := ask(exitDone, "ingest", filepath.Join(dir, "records")); !strings.Contains(said, "Of 60 documents 60 are new") {
		t.Error(said)
	}
	for _, want := range []string{"40 machines in 3 groups", "39 of 40 have numbers", "without a number: 5.26 % (load 1)", "±"} {
		if said := ask(exitDone, "who"); !strings.Contains(strings.Join(strings.Fields(said), " "), want) {
			t.Errorf("who has no %q:\n%s", want, said)
		}
	}
	if said := ask(exitDone, "odd"); !strings.Contains(said, "edge-33  -4") || !strings.Contains(said, "boot-params: mitigations=off") {
		t.Error(said)
	}
	sides := []string{"--base", "kernel=6.12", "--canary", "kernel=6.18"}
	if said := ask(exitRegression, append([]string{"compare"}, sides...)...); !strings.Contains(said, "slower than the base") {
		t.Error(said)
	}
	ask(exitRegression, append([]string{"compare", "--threshold", "5"}, sides...)...)
	ask(exitDone, append([]string{"compare", "--threshold", "20"}, sides...)...)
	few := append([]string{"compare", "--where-is-none"}, sides...)
	if code, _, stderr := unthunk(t, append([]string{"fleet", few[0], "--store", store}, few[1:]...)...); code != exitUsage {
		t.Errorf("%d %s", code, stderr)
	}
	said := ask(exitFailed, "compare", "--base", "kernel=6.12", "--canary", "boot-params=mitigations=off")
	if !strings.Contains(said, "machines") {
		t.Error(said)
	}
	page := filepath.Join(dir, "page.html")
	for _, compared := range []bool{false, true} {
		args := []string{"report", "-o", page}
		if compared {
			args = append(args, sides...)
		}
		ask(exitDone, args...)
		if b, err := os.ReadFile(page); err != nil || strings.Contains(string(b), "What the canaries pay") != compared {
			t.Errorf("a page, %v compared: %v", compared, err)
		}
	}
	for format, want := range map[string]string{
		"csv": "kernel=6.18, cpu=CPU 0, indirect=retpoline\",machines,19", "markdown": "## The fleet", "json": `"kind": "fleet-who"`,
	} {
		if said := ask(exitDone, "who", "--format", format); !strings.Contains(said, want) {
			t.Errorf("%s has no %q:\n%s", format, want, said)
		}
	}
	saved := filepath.Join(dir, "odd.json")
	said = ask(exitDone, "odd", "--json", "--save", saved)
	var odd record.FleetOdd
	if err := json.Unmarshal([]byte(said), &odd); err != nil || len(odd.Rows) != 1 || odd.Rows[0].Machine == "" {
		t.Errorf("%v: %+v", err, odd.Rows)
	}
	if b, err := os.ReadFile(saved); err != nil || string(b) != said {
		t.Errorf("--save is not --json: %v", err)
	}
}

func TestFleetRefuses(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "fleet.db")
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	refuses(t, "fleet", []refused{
		{"no verb", nil, exitUsage, "fleet needs a verb"},
		{"another verb", []string{"whom"}, exitUsage, "did you mean fleet who"},
		{"no store", []string{"who"}, exitUsage, "--store is missing"},
		{"password", []string{"who", "--store", "postgres://me:secret@127.0.0.1/fleet"}, exitUsage, "list of processes"},
		{"password in the user's name", []string{"who", "--store", "postgres://me%3Asecret@127.0.0.1/fleet"}, exitUsage, "list of processes"},
		{"password as an option", []string{"ingest", "--store", "postgres://127.0.0.1/fleet?password=secret"}, exitUsage, "PGPASSFILE"},
		{"another database", []string{"who", "--store", "mysql://127.0.0.1/fleet"}, exitUsage, "not mysql://"},
		{"a record", []string{"who", "run.json"}, exitUsage, "unthunk fleet ingest"},
		{"store that is not there", []string{"who", "--store", store}, exitFailed, "there is no store"},
		{"since", []string{"who", "--store", store, "--since", "30x"}, exitUsage, "is no time"},
		{"at", []string{"who", "--store", store, "--at", "yesterday"}, exitUsage, "is no date"},
		{"by", []string{"who", "--store", store, "--by", "color"}, exitUsage, "there is no field"},
		{"by twice", []string{"who", "--store", store, "--by", "cpu,cpu"}, exitUsage, "named twice"},
		{"where", []string{"odd", "--store", store, "--where", "kernel"}, exitUsage, "is no condition"},
		{"top", []string{"odd", "--store", store, "--top", "0"}, exitUsage, "--top 0"},
		{"format", []string{"who", "--store", store, "--format", "cvs"}, exitUsage, "did you mean csv"},
		{"two formats", []string{"who", "--store", store, "--format", "csv", "--json"}, exitUsage, "two outputs"},
		{"no base", []string{"compare", "--store", store, "--canary", "kernel=1"}, exitUsage, "--base is missing"},
		{"threshold", []string{"compare", "--store", store, "--base", "cpu=1", "--canary", "cpu=2", "--threshold", "-1"}, exitUsage,
			"impossible"},
		{"no output", []string{"report", "--store", store}, exitUsage, "add -o"},
		{"a page of one side", []string{"report", "--store", store, "--canary", "kernel=1", "-o", "p.html"}, exitUsage, "--base is missing"},
		{"a page's threshold", []string{"report", "--store", store, "--threshold", "1", "-o", "p.html"}, exitUsage, "goes with --base"},
		{"a file that is not there", []string{"ingest", "--store", store, "none.json"}, exitFailed, "none.json"},
		{"a file twice", []string{"ingest", "--store", store, empty, empty}, exitUsage, "named twice"},
		{"--save over the store", []string{"who", "--store", store, "--save", store}, exitUsage, "overwrite"},
		{"a server that is not there", []string{"who", "--store", "postgres://me@127.0.0.1:1/fleet"}, exitFailed, "open store"},
	})
	if _, err := os.Stat(store); err == nil {
		t.Error("a refused command made the store")
	}
	code, _, stderr := unthunk(t, "fleet", "ingest", "--store", store, empty)
	if code != exitFailed || !strings.Contains(stderr, "no record of agent") {
		t.Errorf("an empty folder: exit code %d: %s", code, stderr)
	}
}

// posted is a request with a record.
func posted(t *testing.T, body io.Reader) *http.Request {
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body)
	req.Header.Set("Content-Type", "application/json")
	return req
}

// What a page of another origin can send without asking is no record; clients without the token are told of, and not each of them.
func TestFleetLetsIn(t *testing.T) {
	store, err := fleet.Create(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	var said []string
	r, err := newReceiver(store, token, func(text string) { said = append(said, text) })
	if err != nil {
		t.Fatal(err)
	}
	text, err := record.Encode(rollout()[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		token, kind string
		want        int
	}{
		{"0123456789abcdef", "application/json; charset=utf-8", http.StatusNoContent},
		{"0123456789abcdef", "text/plain", http.StatusUnsupportedMediaType},
		{"0123456789abcdef", "", http.StatusUnsupportedMediaType},
		{"other", "application/json", http.StatusUnauthorized},
		{"", "application/json", http.StatusUnauthorized},
	} {
		req := posted(t, bytes.NewReader(text))
		req.Header.Set("Content-Type", test.kind)
		req.Header.Set("Authorization", "Bearer "+test.token)
		answer := httptest.NewRecorder()
		if r.ServeHTTP(answer, req); answer.Code != test.want {
			t.Errorf("%q, %q: %d, want %d", test.token, test.kind, answer.Code, test.want)
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "192.0.2.1") || !strings.HasSuffix(said[0], ": 1 request answered 401") {
		t.Errorf("told of two clients without the token: %q", said)
	}
}

// receiverOf is a receiver of a store of its own, for clients without a token.
func receiverOf(t *testing.T) *receiver {
	t.Helper()
	store, err := fleet.Create(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	r, err := newReceiver(store, "", func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A body that cannot be read to its end is sent again: it is no wrong record.
func TestFleetReceivesHalf(t *testing.T) {
	r := receiverOf(t)
	text, err := record.Encode(rollout()[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		sent int
		err  error
		want int
	}{
		{len(text), io.EOF, http.StatusNoContent},
		{200, os.ErrDeadlineExceeded, http.StatusRequestTimeout},
		{0, io.ErrUnexpectedEOF, http.StatusRequestTimeout},
		{200, io.EOF, http.StatusBadRequest},
	} {
		answer := httptest.NewRecorder()
		sent := io.MultiReader(bytes.NewReader(text[:test.sent]), iotest.ErrReader(test.err))
		r.ServeHTTP(answer, posted(t, sent))
		if answer.Code != test.want {
			t.Errorf("%d bytes, then %v: %d, want %d: %s", test.sent, test.err, answer.Code, test.want, answer.Body)
		}
	}
}

// Who is stopped while another process holds the store is told that, and no error of the database.
func TestFleetIngestInterrupted(t *testing.T) {
	where := filepath.Join(t.TempDir(), "fleet.db")
	store, err := fleet.Create(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", where)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var out, errs bytes.Buffer
	code := run(ctx, []string{"fleet", "ingest", "--store", where}, strings.NewReader(""), &out, &errs)
	if want := "unthunk: " + errInterrupted.Error() + "\n"; code != exitFailed || errs.String() != want {
		t.Errorf("exit code %d, %q, want %q", code, errs.String(), want)
	}
}

// Clients that send a byte each and no more hold little of the room, whatever length they say: a good record is taken meanwhile.
func TestFleetReceivesFromSlow(t *testing.T) {
	r := receiverOf(t)
	text, err := record.Encode(rollout()[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var slow sync.WaitGroup
	for i := range 4 {
		in, out := io.Pipe()
		req := posted(t, in)
		if req.ContentLength = -1; i > 1 {
			req.ContentLength = maxPosted
		}
		slow.Go(func() { endedBy(ctx, r).ServeHTTP(httptest.NewRecorder(), req) })
		if _, err := out.Write([]byte("{")); err != nil { // it returns when that is read
			t.Fatal(err)
		}
		defer out.Close()
	}
	answer := httptest.NewRecorder()
	r.ServeHTTP(answer, posted(t, bytes.NewReader(text)))
	if answer.Code != http.StatusNoContent {
		t.Errorf("%d: %s", answer.Code, answer.Body)
	}
	cancel()
	slow.Wait()
}

// A body that there is no room for to its end is sent again, and holds none of it afterwards.
func TestFleetReceivesWithoutRoom(t *testing.T) {
	r := receiverOf(t)
	r.wait = time.Millisecond
	if !r.pending.TryAcquire(maxPending - reserved) {
		t.Fatal("no room")
	}
	answer := httptest.NewRecorder()
	r.ServeHTTP(answer, posted(t, strings.NewReader("{\n"+strings.Repeat(" ", 2*reserved))))
	if answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Body.String(), "room") {
		t.Errorf("%d: %s", answer.Code, answer.Body)
	}
	if !r.pending.TryAcquire(reserved) {
		t.Error("its room is taken still")
	}
}

// Of a request with many documents that are no records the first are refused, and the others not read.
func TestFleetRefusesMany(t *testing.T) {
	r := receiverOf(t)
	for _, document := range []string{"{\n", "{}\n"} {
		in := strings.NewReader(strings.Repeat(document, maxPosted/len(document)))
		answer := httptest.NewRecorder()
		r.ServeHTTP(answer, posted(t, in))
		if answer.Code != http.StatusBadRequest || !strings.HasPrefix(answer.Body.String(), "1000 documents are refused, ") {
			t.Errorf("%q: %d: %.200s", document, answer.Code, answer.Body)
		}
		if in.Len() < maxPosted/2 {
			t.Errorf("%q: %d bytes are left", document, in.Len())
		}
	}
}

// A request waits for its turn until the server ends, and is answered so that the agent keeps its record.
func TestFleetReceivesInTurn(t *testing.T) {
	r := receiverOf(t)
	text, err := record.Encode(rollout()[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{http.StatusServiceUnavailable, http.StatusNoContent} {
		if !r.pending.TryAcquire(maxPending - 1) {
			t.Fatal("a request was answered, and has its room still")
		}
		ctx, cancel := context.WithCancel(t.Context())
		answered := make(chan int, 1)
		go func() {
			answer := httptest.NewRecorder()
			endedBy(ctx, r).ServeHTTP(answer, posted(t, bytes.NewReader(text)))
			answered <- answer.Code
		}()
		for r.pending.TryAcquire(1) { // it does not while another waits
			r.pending.Release(1)
			if len(answered) > 0 {
				t.Fatalf("it did not wait: %d", <-answered)
			}
			runtime.Gosched()
		}
		if want == http.StatusNoContent {
			r.pending.Release(maxPending - 1)
		} else {
			cancel()
		}
		if got := <-answered; got != want {
			t.Errorf("%d, want %d", got, want)
		}
		if want != http.StatusNoContent {
			r.pending.Release(maxPending - 1)
		}
		cancel()
	}
}

// What an agent posts is in the store when it is answered; without the token, or when it is no record, it is not. A signal
// ends the server.
func TestFleetListen(t *testing.T) {
	dir := t.TempDir()
	store, token := filepath.Join(dir, "fleet.db"), filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		code := run(ctx, []string{"fleet", "ingest", "--store", store, "--listen", "127.0.0.1:0", "--token-file", token},
			strings.NewReader(""), io.Discard, w)
		w.Close()
		ended <- code
	}()
	said := bufio.NewReader(r)
	line, err := said.ReadString('\n')
	_, url, ok := strings.Cut(strings.TrimSpace(line), "taken at ")
	if err != nil || !ok {
		t.Fatalf("%v: %s", err, line)
	}
	go io.Copy(io.Discard, said)
	go io.Copy(io.Discard, r)
	body, err := record.Encode(rollout()[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		method, token, body string
		want                int
	}{
		{http.MethodPost, "Bearer 0123456789abcdef", string(body), http.StatusNoContent},
		{http.MethodPost, "Bearer 0123456789abcdef", string(body), http.StatusNoContent},
		{http.MethodPost, "Bearer 0123456789abcdeX", string(body), http.StatusUnauthorized},
		{http.MethodPost, "", string(body), http.StatusUnauthorized},
		{http.MethodGet, "Bearer 0123456789abcdef", "", http.StatusMethodNotAllowed},
		{http.MethodPost, "Bearer 0123456789abcdef", string(body[:200]), http.StatusBadRequest},
		{http.MethodPost, "Bearer 0123456789abcdef", "", http.StatusBadRequest},
		{http.MethodPost, "Bearer 0123456789abcdef", strings.Repeat("x", 9<<20), http.StatusRequestEntityTooLarge},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, url, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", test.token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.want {
			t.Errorf("%s of %d bytes with %q: %s, want %d", test.method, len(test.body), test.token, resp.Status, test.want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if code := <-ended; code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if _, stdout, _ := unthunk(t, "fleet", "who", "--store", store); !strings.Contains(stdout, "1 machine in 1 group") {
		t.Error(stdout)
	}
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, []byte("guess\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	web := filepath.Join(dir, "web.yml")
	if err := os.WriteFile(web, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, "fleet", []refused{
		{"open to all", []string{"ingest", "--store", store, "--listen", "0.0.0.0:0"}, exitUsage, "add --token-file"},
		{"no users", []string{"ingest", "--store", store, "--listen", "0.0.0.0:0", "--web-config", web}, exitUsage, "add --token-file"},
		{"a token that is short", []string{"ingest", "--store", store, "--listen", ":0", "--token-file", short}, exitFailed, "guessed"},
		{"files too", []string{"ingest", "--store", store, "--listen", ":0", dir}, exitUsage, "of another run"},
		{"token alone", []string{"ingest", "--store", store, "--token-file", token}, exitUsage, "go with --listen"},
		{"no port", []string{"ingest", "--store", store, "--listen", "localhost"}, exitUsage, "--listen"},
	})
}
