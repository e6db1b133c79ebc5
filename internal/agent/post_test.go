package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// server takes records, unless its answer is another one.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	answer int
	got    []string
	tokens []string
}

func newServer(t *testing.T) *server {
	s := &server{answer: http.StatusOK}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		b, _ := io.ReadAll(r.Body)
		s.tokens = append(s.tokens, r.Header.Get("Authorization"))
		answer := s.answer
		if string(b) == "bad" {
			answer = http.StatusUnprocessableEntity
		}
		if answer == http.StatusOK {
			s.got = append(s.got, string(b))
		}
		if answer == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(answer)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) set(answer int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// What a server does not take waits, in order, and is sent when the server is back.
func TestPost(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Post{URL: s.URL, TokenFile: token, Spool: filepath.Join(dir, "spool")}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	add := func(name, text string) {
		t.Helper()
		if dropped, err := p.Add(name, []byte(text)); err != nil || dropped != 0 {
			t.Fatalf("%d dropped, %v", dropped, err)
		}
	}
	add("1.json", "one")
	for _, answer := range []int{http.StatusServiceUnavailable, http.StatusUnauthorized, http.StatusFound, http.StatusTooManyRequests} {
		s.set(answer)
		if refused, err := p.Send(t.Context()); err == nil || refused != 0 || p.Waiting() != 1 {
			t.Errorf("answer %d: %d refused, %d wait, %v", answer, refused, p.Waiting(), err)
		}
	}
	add("2.json", "two")
	away := p
	away.URL = "http://127.0.0.1:1" // nobody listens
	if refused, err := away.Send(t.Context()); err == nil || refused != 0 || p.Waiting() != 2 {
		t.Errorf("away: %d refused, %d wait, %v", refused, p.Waiting(), err)
	}
	add("3.json", "bad")
	add("4.json", "four")
	s.set(http.StatusOK)
	refused, err := p.Send(t.Context())
	if refused != 1 || err == nil || p.Waiting() != 0 {
		t.Errorf("%d refused, %d wait, %v", refused, p.Waiting(), err)
	}
	if !slices.Equal(s.got, []string{"one", "two", "four"}) {
		t.Errorf("the server got %v", s.got)
	}
	if b, err := os.ReadFile(filepath.Join(p.Spool, "0000000003-3.json.refused")); err != nil || string(b) != "bad" {
		t.Errorf("what the server refused is %q, %v", b, err)
	}
	if slices.ContainsFunc(s.tokens, func(token string) bool { return token != "Bearer secret" }) {
		t.Errorf("tokens %v", s.tokens)
	}
	if refused, err := p.Send(t.Context()); refused != 0 || err != nil {
		t.Errorf("nothing waits: %d refused, %v", refused, err)
	}
}

// A record that no folder takes is sent from memory.
func TestSendAlone(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := Post{URL: s.URL}
	if err := p.SendAlone(t.Context(), "1.json", []byte("one")); err != nil || !slices.Equal(s.got, []string{"one"}) {
		t.Errorf("%v, the server got %v", err, s.got)
	}
	err := p.SendAlone(t.Context(), "2.json", []byte("bad"))
	if err == nil || !strings.Contains(err.Error(), "post record 2.json: the server refuses it") {
		t.Error(err)
	}
}

// The spool holds so many records, and drops the oldest. So do those that were refused.
func TestSpoolBounded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := Post{URL: s.URL, Spool: t.TempDir()}
	dropped := 0
	for i := range MaxSpooled + 5 {
		n, err := p.Add(fmt.Sprintf("%03d.json", i), []byte("bad"))
		if err != nil {
			t.Fatal(err)
		}
		dropped += n
	}
	files, err := p.waiting()
	if err != nil || len(files) != MaxSpooled || dropped != 5 || !strings.HasSuffix(files[0], "-005.json") {
		t.Errorf("%d wait, %d dropped, the oldest is %s, %v", len(files), dropped, files[0], err)
	}
	for range 2 {
		if _, err := p.Send(t.Context()); err == nil {
			t.Error("refused records are no error")
		}
		if _, err := p.Add("999.json", []byte("bad")); err != nil {
			t.Fatal(err)
		}
	}
	refused, err := filepath.Glob(filepath.Join(p.Spool, "*.refused"))
	if err != nil || len(refused) != MaxSpooled {
		t.Errorf("%d were put aside, %v", len(refused), err)
	}
	// One that leaves no room for others stays: it is the newest. One that no attempt could send is not taken.
	if n, err := p.Add("y.json", make([]byte, MaxSpooledBytes)); err != nil || n != 1 || p.Waiting() != 1 {
		t.Errorf("%d dropped, %d wait, %v", n, p.Waiting(), err)
	}
	if n, err := p.Add("z.json", make([]byte, MaxSpooledBytes+1)); err == nil || n != 0 || p.Waiting() != 1 {
		t.Errorf("%d dropped, %d wait, %v", n, p.Waiting(), err)
	}
}

// What was written last is the newest, whatever the clock said when and since: it waits, and is sent after those before it.
func TestSpoolClock(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := Post{URL: s.URL, Spool: t.TempDir()}
	for i := range MaxSpooled + 100 { // of a version that gave no numbers, a century ahead
		file := filepath.Join(p.Spool, fmt.Sprintf("2126%04dT000000Z-run.json", i))
		if err := os.WriteFile(file, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"20261130T000000Z-a.json", "19700101T000000Z-b.json", "21260101T000000Z-c.json", "20261201T000000Z-d.json"}
	for i, name := range names {
		dropped, err := p.Add(name, []byte(name))
		if want := map[bool]int{true: 101, false: 1}[i == 0]; err != nil || dropped != want || p.Waiting() != MaxSpooled {
			t.Errorf("%s: %d dropped, want %d; %d wait, %v", name, dropped, want, p.Waiting(), err)
		}
	}
	if _, err := p.Send(t.Context()); err != nil || p.Waiting() != 0 || len(s.got) < 4 || !slices.Equal(s.got[len(s.got)-4:], names) {
		t.Errorf("%v: the server got %q", err, s.got)
	}
}

// Numbers go on behind those of records that were put aside, and end where they have no more digits.
func TestSpoolNumbers(t *testing.T) {
	t.Parallel()
	p := Post{Spool: t.TempDir()}
	for _, test := range []struct{ there, want string }{
		{"", "0000000001-r.json"}, {"0000000041-x.json.refused", "0000000042-r.json"}, {"-000000100-x.json", "0000000043-r.json"},
		{"00000000100-x.json", "0000000044-r.json"}, {"9999999998-x.json", "9999999999-r.json"}, {"9999999999-x.json", "9999999999-r.json"},
	} {
		if test.there != "" {
			if err := os.WriteFile(filepath.Join(p.Spool, test.there), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Add("r.json", []byte("record")); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(p.Spool, test.want)); err != nil || string(b) != "record" {
			t.Errorf("behind %q: %q, %v", test.there, b, err)
		}
	}
}

// A file that is too large to be a record is put aside: it drops no record, and holds up none behind it.
func TestSpoolTooLarge(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := Post{URL: s.URL, Spool: t.TempDir()}
	for _, name := range []string{"1.json", "2099.json"} {
		file := filepath.Join(p.Spool, name)
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, MaxSpooledBytes+1)); err != nil {
			t.Fatal(err)
		}
	}
	if dropped, err := p.Add("2026.json", []byte("record")); err != nil || dropped != 0 || p.Waiting() != 3 {
		t.Errorf("%d dropped, %d wait, %v", dropped, p.Waiting(), err)
	}
	aside, err := p.Send(t.Context())
	if aside != 2 || err == nil || !strings.Contains(err.Error(), "2099.json") {
		t.Errorf("%d put aside, %v", aside, err)
	}
	if p.Waiting() != 0 || !slices.Equal(s.got, []string{"record"}) {
		t.Errorf("%d wait; the server got %q", p.Waiting(), s.got)
	}
	if _, err := os.Stat(filepath.Join(p.Spool, "2099.json.refused")); err != nil {
		t.Error(err)
	}
	// Both are told where the server is away, too.
	file := filepath.Join(p.Spool, "2.json")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, MaxSpooledBytes+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Add("2026.json", []byte("record")); err != nil {
		t.Fatal(err)
	}
	s.set(http.StatusServiceUnavailable)
	aside, err = p.Send(t.Context())
	if aside != 1 || err == nil || !strings.Contains(err.Error(), "2.json") || !strings.Contains(err.Error(), "503") {
		t.Errorf("%d put aside, %v", aside, err)
	}
}

// Only what says something of the file puts it aside: not what the process lacks.
func TestReadable(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		unix.EMFILE: false, unix.ENFILE: false, unix.ENOMEM: false, unix.EINTR: false, unix.ENOENT: false,
		unix.EIO: true, unix.EACCES: true, io.ErrUnexpectedEOF: true,
	} {
		if got := ofFile(&os.PathError{Op: "open", Path: "1.json", Err: err}); got != want {
			t.Errorf("%v is of the file: %v", err, got)
		}
	}
}

// A record whose connection breaks, as by its size, holds up those of more than half its size, and no other.
func TestSendBroken(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var attempts atomic.Int32
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 700 {
			s.Config.Handler.ServeHTTP(w, r)
			return
		}
		attempts.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	p := Post{URL: broken.URL, Spool: t.TempDir()}
	for _, b := range [][]byte{
		make([]byte, 2000), []byte("one"), make([]byte, 2000), make([]byte, 1500), make([]byte, 1000), make([]byte, 501),
		[]byte(strings.Repeat("2", 500)),
	} {
		if _, err := p.Add("r.json", b); err != nil {
			t.Fatal(err)
		}
	}
	aside, err := p.Send(t.Context())
	if aside != 0 || err == nil || p.Waiting() != 5 || len(s.got) != 2 || len(s.got[1]) != 500 || attempts.Load() != 2 {
		t.Errorf("%d put aside, %d wait, %v; the server got %q, %d attempts broke", aside, p.Waiting(), err, s.got, attempts.Load())
	}
}

// A smaller record may come through where a connection broke, or took too long. Where there is no connection, no certificate that
// vouches for the server, or an answer that cannot be read, none does.
func TestBySize(t *testing.T) {
	t.Parallel()
	with := func(start func(http.Handler) *httptest.Server, h http.HandlerFunc) string {
		s := start(h)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(s.Close)
		return s.URL
	}
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	hangs := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	}
	plain := with(httptest.NewServer, says(""))
	for name, test := range map[string]struct {
		url  string
		ctx  context.Context
		want bool
	}{
		"nobody listens":     {"http://127.0.0.1:1", t.Context(), false},
		"no TLS":             {"https" + strings.TrimPrefix(plain, "http"), t.Context(), false},
		"unknown authority":  {with(httptest.NewTLSServer, says("")), t.Context(), false},
		"malformed answer":   {with(httptest.NewServer, says("HTTP/9\r\n\r\n")), t.Context(), false},
		"connection breaks":  {plain, t.Context(), true},
		"nothing in the end": {with(httptest.NewServer, hangs), ctx, true},
	} {
		client, err := Post{}.client()
		if err != nil {
			t.Fatal(err)
		}
		defer client.CloseIdleConnections()
		if err := (Post{URL: test.url}).post(test.ctx, client, "r.json", []byte("record")); err == nil || bySize(err) != test.want {
			t.Errorf("%s: %v: want %v", name, err, test.want)
		}
	}
}

// What was refused last stays, whatever its time says, and a folder in the place of one that was refused holds up nobody, and is told of.
func TestRefusedClock(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := Post{URL: s.URL, Spool: t.TempDir()}
	for i := range MaxSpooled {
		if err := os.WriteFile(filepath.Join(p.Spool, fmt.Sprintf("2099%04d.json.refused", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.MkdirAll(filepath.Join(p.Spool, "0.json.refused", "x"), 0o700), os.WriteFile(filepath.Join(p.Spool, "0.json"), []byte("bad"), 0o600),
		os.WriteFile(filepath.Join(p.Spool, "1970.json"), []byte("bad"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Add("2026.json", []byte("record")); err != nil {
		t.Fatal(err)
	}
	aside, err := p.Send(t.Context())
	if aside != 1 || err == nil || p.Waiting() != 1 || !slices.Equal(s.got, []string{"record"}) {
		t.Errorf("%d put aside, %d wait, %v; the server got %q", aside, p.Waiting(), err, s.got)
	}
	for _, want := range []string{"put record aside: rename ", "/0.json", "post record 1970.json: the server refuses it"} {
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(p.Spool, "1970.json.refused")); err != nil {
		t.Error(err)
	}
	if old, err := filepath.Glob(filepath.Join(p.Spool, "2099*")); err != nil || len(old) != MaxSpooled-1 {
		t.Errorf("%d of those before, %v", len(old), err)
	}
}

// Of what a server says a line has room for 100 characters, and shows what controls a terminal; of a broken answer for some more.
func TestAnswerBounded(t *testing.T) {
	t.Parallel()
	const controls = "\x1b]0;x\x07\x9b\u202e"
	long := strings.Repeat("A", 400_000)
	for _, test := range []struct {
		answer, want string
		most         int
	}{
		{"HTTP/1.1 500 " + controls + long, "500 \ufffd]0;x\ufffd\ufffd\ufffdAAA", 150},
		{"HTTP/1.1 400 " + controls + long, "400 \ufffd]0;x\ufffd\ufffd\ufffdAAA", 200},
		{"HTTP/1.1 503 Service Unavailable", "503 Service Unavailable", 150},
		{"HTTP/9 " + controls + long, "malformed HTTP", 400},
		{controls + long, "malformed HTTP", 400},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, test.answer+"\r\nContent-Length: 0\r\n\r\n")
			}
		}()
		err = Post{URL: "http://" + listener.Addr().String()}.SendAlone(t.Context(), "r.json", nil)
		if err == nil {
			t.Fatalf("%.30q is taken", test.answer)
		}
		text := err.Error()
		if !strings.Contains(text, test.want) || utf8.RuneCountInString(text) > test.most {
			t.Errorf("%.30q: %d characters, %.300q, want %q", test.answer, utf8.RuneCountInString(text), text, test.want)
		}
		if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && r != unicode.ReplacementChar }); i >= 0 {
			t.Errorf("%.30q: %q", test.answer, text[i:])
		}
	}
}

func TestPostCheck(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		p    Post
		want string
	}{
		{Post{URL: "https://fleet.example/records", TokenFile: token}, ""},
		{Post{URL: "http://[::1]:9/", TokenFile: token}, ""},
		{Post{URL: "http://fleet.example/records"}, ""},
		{Post{URL: "http://fleet.example/records", TokenFile: token}, "in the clear"},
		{Post{URL: "https://me:secret@fleet.example/"}, "a password in a URL"},
		{Post{URL: "fleet.example/records"}, "is not an address"},
		{Post{URL: "ftp://fleet.example/"}, "is not an address"},
		{Post{URL: "http://%"}, "cannot be read"},
		{Post{URL: "https://fleet.example/", TokenFile: token + "x"}, "no such file"},
		{Post{URL: "https://fleet.example/", CAFile: t.TempDir()}, "read "},
	} {
		err := test.p.Check()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.p, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: the error has the password: %v", test.p, err)
		}
	}
}

// A link in the spool is not sent, and neither it nor a pipe holds up the records behind it.
func TestSpoolOfOthers(t *testing.T) {
	s := newServer(t)
	p := Post{URL: s.URL, Spool: t.TempDir()}
	secret := filepath.Join(t.TempDir(), "secret")
	for _, err := range []error{
		os.WriteFile(secret, []byte("secret"), 0o600),
		os.Symlink(secret, filepath.Join(p.Spool, "1.json")),
		unix.Mkfifo(filepath.Join(p.Spool, "2.json"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Add("3.json", []byte("record")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Send(t.Context()); err != nil || !slices.Equal(s.got, []string{"record"}) || p.Waiting() != 0 {
		t.Errorf("%v: the server has %q, %d wait", err, s.got, p.Waiting())
	}
}

// A spool that is a link is refused: what is at its other end is neither sent nor removed.
func TestSpoolIsALink(t *testing.T) {
	s := newServer(t)
	others := filepath.Join(t.TempDir(), "others")
	p := Post{URL: s.URL, Spool: filepath.Join(t.TempDir(), "spool")}
	for _, err := range []error{
		os.Mkdir(others, 0o700), os.WriteFile(filepath.Join(others, "1.json"), []byte("secret"), 0o600), os.Symlink(others, p.Spool),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Add("2.json", []byte("record")); err == nil || !strings.Contains(err.Error(), "it is not a folder") {
		t.Error(err)
	}
	if _, err := p.Send(t.Context()); err == nil || !strings.Contains(err.Error(), "it is not a folder") || len(s.got) > 0 {
		t.Errorf("%v: the server has %q", err, s.got)
	}
	if files, err := os.ReadDir(others); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// A proxy of the environment is for https alone: it sees no record. Go reads the environment once in a process.
func TestProxy(t *testing.T) {
	const variable = "UNTHUNK_TEST_PROXY"
	if os.Getenv(variable) == "" {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestProxy$")
		cmd.Env = append(os.Environ(), variable+"=1", "HTTP_PROXY=http://192.0.2.1:8080", "HTTPS_PROXY=http://192.0.2.1:8080", "NO_PROXY=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	client, err := Post{}.client()
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{"http://fleet.example/": "", "https://fleet.example/": "http://192.0.2.1:8080"} {
		request, err := http.NewRequest(http.MethodPost, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		by, err := client.Transport.(*http.Transport).Proxy(request)
		if err != nil {
			t.Fatal(err)
		}
		if got := by; (got == nil) != (want == "") || got != nil && got.String() != want {
			t.Errorf("%s goes to the proxy %v, want %q", address, got, want)
		}
	}
}
