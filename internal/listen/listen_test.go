package listen

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })

func start(t *testing.T, o Options, header, idle time.Duration) *Server {
	t.Helper()
	s, err := serve(t.Context(), o, hello, header, idle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// ask sends a request and returns the answer's body.
func ask(c net.Conn) (string, error) {
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// A connection that is idle, or whose header does not end, is closed.
func TestIdle(t *testing.T) {
	s := start(t, Options{Address: ":0"}, 200*time.Millisecond, 200*time.Millisecond)
	for what, begin := range map[string]func(net.Conn) error{
		"after an answer":       func(c net.Conn) error { _, err := ask(c); return err },
		"before a request":      func(net.Conn) error { return nil },
		"in a request's header": func(c net.Conn) error { _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost:"); return err },
	} {
		c := dial(t, s)
		if err := begin(c); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("%s: the connection stays open: %v", what, err)
		}
	}
}

// Many clients whose headers do not end, a byte at a time, keep nobody out for longer than
// their turns take.
func TestSlowHeaders(t *testing.T) {
	s := start(t, Options{Address: ":0"}, 200*time.Millisecond, 200*time.Millisecond)
	const slow = 3 * Connections
	for range slow {
		c := dial(t, s)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nX: ")
		go func() {
			for { // until the server has closed it
				if _, err := fmt.Fprint(c, "x"); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
	c := dial(t, s)
	if body, err := ask(c); err != nil || body != "hello" {
		t.Errorf("beside %d slow clients: %q, %v", slow, body, err)
	}
}

// A body that never comes, and an answer that nobody reads, end too.
func TestLimits(t *testing.T) {
	s := start(t, Options{Address: ":0"}, headerTime, idleTime)
	if s.server.ReadTimeout <= 0 || s.server.WriteTimeout <= 0 || s.server.MaxHeaderBytes <= 0 {
		t.Errorf("no limit: %+v", s.server)
	}
	c := dial(t, s)
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 1<<20)); err == nil {
		line, _ := bufio.NewReader(c).ReadString('\n')
		if !strings.Contains(line, "431") && line != "" {
			t.Errorf("a header of 1 MiB: %q", line)
		}
	}
}

// A server ends with its context, without being closed.
func TestServeUntil(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Serve(ctx, Options{Address: ":0"}, hello)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if body, err := ask(dial(t, s)); err != nil || body != "hello" {
		t.Errorf("%q, %v", body, err)
	}
	cancel()
	testutil.Eventually(t, "closed", func() bool {
		c, err := net.Dial("tcp", s.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// One connection more than the limit waits until another one ends.
func TestConnections(t *testing.T) {
	s := start(t, Options{Address: ":0"}, time.Minute, time.Minute)
	var open []net.Conn
	for range Connections {
		c := dial(t, s)
		if body, err := ask(c); err != nil || body != "hello" {
			t.Fatalf("%q, %v", body, err)
		}
		open = append(open, c)
	}
	more := dial(t, s)
	more.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := ask(more); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more connection: %v", err)
	}
	more.Close()
	open[0].Close()
	next := dial(t, s)
	if body, err := ask(next); err != nil || body != "hello" {
		t.Errorf("after one ended: %q, %v", body, err)
	}
}

// fakeHash is bcrypt of "fakepassword", cost 10.
const fakeHash = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"

// TLS and users come from a web configuration file of Prometheus.
func TestWebConfig(t *testing.T) {
	s, roots := startUsers(t, fakeHash)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for password, want := range map[string]int{"fakepassword": http.StatusOK, "wrong": http.StatusUnauthorized, "": http.StatusUnauthorized} {
		if code, err := askWith(client, s, password); err != nil || code != want {
			t.Errorf("password %q: %d, %v, want %d", password, code, err, want)
		}
	}
	if resp, err := http.Get("http://" + s.Addr().String()); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP: %s", resp.Status)
		}
	}
}

// askWith sends a request of the user prometheus with a password, "" for none, and returns the status of the answer.
func askWith(client *http.Client, s *Server, password string) (int, error) {
	req, err := http.NewRequest("GET", s.URL("/"), nil)
	if err != nil {
		return 0, err
	}
	if password != "" {
		req.SetBasicAuth("prometheus", password)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// No client has HTTP/2, whatever it offers, with TLS or without.
func TestNoHTTP2(t *testing.T) {
	s, roots := startUsers(t, fakeHash)
	for _, offers := range [][]string{nil, {"h2", "http/1.1"}, {"h2"}} {
		c, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{RootCAs: roots, NextProtos: offers})
		if err != nil {
			continue // it is refused
		}
		if got := c.ConnectionState().NegotiatedProtocol; got == "h2" {
			t.Errorf("who offers %q has %q", offers, got)
		}
		wantHTTP1(t, c)
	}
	plain := start(t, Options{Address: ":0"}, headerTime, idleTime)
	wantHTTP1(t, dial(t, plain))
}

// wantHTTP1 checks that what HTTP/2 begins with has an answer of HTTP/1.1, or none.
func wantHTTP1(t *testing.T, c net.Conn) {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	// The preface and empty SETTINGS (RFC 9113, section 3.4).
	fmt.Fprint(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	line, err := bufio.NewReader(c).ReadString('\n')
	if line != "" && !strings.HasPrefix(line, "HTTP/1.1 ") || line == "" && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the preface of HTTP/2 has the answer %q, %v", line, err)
	}
}

// quickHash is bcrypt of "fakepassword", cost 4: a wrong password takes a millisecond.
const quickHash = "$2a$04$GpuNrFcVkKqG.XD8wvKBi.TqOiW0apNqJRCsG9oW1KvjqMxN4MAjK"

// Of many wrong passwords that come at once, as many are checked or wait as there are connections, and the right one has its turn.
func TestWrongPasswords(t *testing.T) {
	s, roots := startUsers(t, quickHash)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	if code, err := askWith(client, s, ""); err != nil || code != http.StatusUnauthorized { // the others may share its connection
		t.Fatalf("no password: %d, %v", code, err)
	}
	const requests = 3 * Connections
	done := make(chan struct{})
	for i := range requests {
		go func() {
			// On a machine that is busy a handshake may have no time.
			if code, err := askWith(client, s, fmt.Sprint(i)); err == nil && code != http.StatusUnauthorized {
				t.Errorf("wrong password: %d", code)
			}
			done <- struct{}{}
		}()
	}
	most := 0
	stacks := make([]byte, 4<<20)
	for left, tick := requests, time.Tick(5*time.Millisecond); left > 0; {
		select {
		case <-done:
			left--
		case <-tick:
			n := runtime.Stack(stacks, true)
			most = max(most, bytes.Count(stacks[:n], []byte("web.(*webHandler).ServeHTTP(")))
		}
	}
	if most == 0 || most > Connections {
		t.Errorf("%d passwords are checked, or wait for it, at a time", most)
	}
	if code, err := askWith(client, s, "fakepassword"); err != nil || code != http.StatusOK {
		t.Errorf("the right password: %d, %v", code, err)
	}
}

// startUsers starts a server with TLS and the user prometheus, and returns who vouches for its certificate.
func startUsers(t *testing.T, hash string) (*Server, *x509.CertPool) {
	t.Helper()
	dir, roots := certificate(t)
	config := filepath.Join(dir, "web.yml")
	text := "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\nbasic_auth_users:\n  prometheus: " + hash + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, Options{Address: "127.0.0.1:0", WebConfig: config}, headerTime, idleTime), roots
}

// certificate writes the certificate of net/http/httptest, for 127.0.0.1, and its key.
func certificate(t *testing.T) (dir string, roots *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(hello)
	defer s.Close()
	key, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: s.Certificate().Raw}, "key.pem": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return dir, roots
}

func TestServeFails(t *testing.T) {
	dir := t.TempDir()
	config := func(name, text string) Options {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Options{Address: ":0", WebConfig: path}
	}
	for _, name := range []string{"fifo", "1"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, o := range map[string]Options{
		"missing port":              {Address: "nonsense"},
		"no such file or directory": {Address: ":0", WebConfig: filepath.Join(dir, "none")},
		"not a regular file":        {Address: ":0", WebConfig: dir},
		"field nonsense not found":  config("unknown.yml", "nonsense: 1\n"),
		"cert":                      config("cert.yml", "tls_server_config:\n  cert_file: nope.pem\n  key_file: nope.pem\n"),
		"tls_server_config has no certificate: cert_file, key_file": config("empty.yml", "tls_server_config: {}\n"),
		// What has no end, and what never answers.
		"cert_file: open /dev/zero: it is not a regular file": config("zero.yml",
			"tls_server_config:\n  cert_file: /dev/zero\n  key_file: /dev/zero\n"),
		"open " + filepath.Join(dir, "1") + ": it is not a regular file": config("number.yml",
			"tls_server_config:\n  cert_file: 1\n  key_file: 1\n"),
		"client_ca_file: open " + filepath.Join(dir, "fifo") + ": it is not a regular file": config("fifo.yml",
			"tls_server_config:\n  client_ca_file: fifo\n"),
		"hashedSecret too short": config("users.yml", "basic_auth_users:\n  a: plain\n"),
	} {
		s, err := Serve(t.Context(), o, hello)
		if err == nil {
			s.Close()
			t.Errorf("%+v: no error, want %q", o, want)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}

// A port is enough, with a colon or without.
func TestHost(t *testing.T) {
	for address, want := range map[string]string{
		"9137": "127.0.0.1:9137", ":9137": "127.0.0.1:9137", "0.0.0.0:9137": "0.0.0.0:9137", "[::1]:9137": "[::1]:9137",
		"localhost:http": "localhost:http",
		"":               "", "99999": "", "-1": "", "host": "", "::1": "",
	} {
		if got, err := Host(address); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", address, got, err, want)
		}
	}
}

func TestOpen(t *testing.T) {
	for address, want := range map[string]bool{":0": false, "127.0.0.1:0": false, "0.0.0.0:0": true} {
		o := Options{Address: address}
		if s := start(t, o, headerTime, idleTime); s.Open(o) != want {
			t.Errorf("%s: open is %v", address, !want)
		}
	}
}

// TLS keeps nobody out: who has no password and needs no certificate can send what they like.
func TestOpenToAll(t *testing.T) {
	dir, _ := certificate(t)
	config := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const withTLS = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"
	clients := "  client_ca_file: cert.pem\n  client_auth_type: "
	for path, want := range map[string]bool{
		"": true, config("empty", ""): true, config("tls", withTLS): true,
		config("users", "basic_auth_users:\n  a: "+fakeHash+"\n"):                    false,
		config("any", withTLS+clients+"VerifyClientCertIfGiven\n"):                   true,
		config("clients", withTLS+clients+"RequireAndVerifyClientCert\n"):            false,
		config("system", withTLS+"  client_auth_type: RequireAndVerifyClientCert\n"): true,
	} {
		for address, reachable := range map[string]bool{"127.0.0.1:0": false, "0.0.0.0:0": true} {
			s := start(t, Options{Address: address, WebConfig: path}, headerTime, idleTime)
			if s.OpenToAll() != (want && reachable) {
				t.Errorf("%s at %s: open to all is %v", filepath.Base(path), address, s.OpenToAll())
			}
		}
	}
}
