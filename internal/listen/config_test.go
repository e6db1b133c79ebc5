package listen

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

// told are warnings.
type told struct {
	mu   sync.Mutex
	said []string
}

func (w *told) warn(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

// take is what was said since the last time.
func (w *told) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	said := strings.Join(w.said, "\n")
	w.said = nil
	return said
}

// What becomes of a web configuration, and of the files that it names, while it is served: what is right holds at once, what is
// wrong, empty, without end, or lets in whoever comes changes nothing and is said once.
func TestConfigChanges(t *testing.T) {
	dir, roots := certificate(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	instead := func(name string, make func(path string) error) { // by a rename, as who renews a certificate does it
		t.Helper()
		if err := make(at("new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(at("new"), at(name)); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to string) func(string) error { return func(path string) error { return os.Symlink(to, path) } }
	const withTLS = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"
	const users = "basic_auth_users:\n  prometheus: " + quickHash + "\n"
	key, err := os.ReadFile(at("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	write("web.yml", withTLS+users)
	var w told
	s := start(t, Options{Address: "127.0.0.1:0", WebConfig: at("web.yml"), Warn: w.warn}, headerTime, idleTime)
	kept := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer kept.CloseIdleConnections()
	anew := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	for _, step := range []struct {
		what   string
		change func()
		// says is in the warning, "" without one; right whether the password is that of the beginning.
		says  string
		wrong bool
	}{
		{what: "as it began", change: func() {}},
		{"empty", func() { write("web.yml", "") }, "neither a password nor a certificate", false},
		{"a comment", func() { write("web.yml", "# new\n") }, "", false}, // it was said
		{"without users", func() { write("web.yml", withTLS) }, "", false},
		{"without TLS", func() { write("web.yml", users) }, "TLS begins and ends", false},
		{"half of a line", func() { write("web.yml", withTLS+"basic_auth") }, "could not find expected", false},
		{"gone", func() { os.Remove(at("web.yml")) }, "no such file", false},
		{"without end", func() { instead("web.yml", link("/dev/zero")) }, "not a regular file", false},
		{"of many wrong fields", func() {
			os.Remove(at("web.yml"))
			write("web.yml", strings.Repeat("x", 200)+": 1\n"+strings.Repeat("y", 200)+": 1\n"+strings.Repeat("z", 200)+": 1\n")
		}, "not found in type", false},
		{"large", func() {
			instead("web.yml", func(path string) error {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					return err
				}
				return os.Truncate(path, 50<<30)
			})
		}, "more than 1 MiB", false},
		{"another password", func() {
			os.Remove(at("web.yml"))
			write("web.yml", withTLS+strings.Replace(users, quickHash, fakeHash, 1))
		}, "", false},
		{"another user", func() { write("web.yml", withTLS+strings.Replace(users, "prometheus", "other", 1)) }, "", true},
		{"back", func() { write("web.yml", withTLS+users) }, "", false},
		{"a key without end", func() { instead("key.pem", link("/dev/zero")) }, "key_file", false},
		{"a key of nothing", func() { os.Remove(at("key.pem")); write("key.pem", "") }, "missing one of key", false},
		{"the key", func() { write("key.pem", string(key)) }, "", false},
	} {
		step.change()
		want := http.StatusOK
		if step.wrong {
			want = http.StatusUnauthorized
		}
		for name, transport := range map[string]*http.Transport{"a connection that is kept": kept, "a new connection": anew} {
			client := &http.Client{Transport: transport, Timeout: time.Minute}
			for password, want := range map[string]int{"fakepassword": want, "": http.StatusUnauthorized} {
				if code, err := askWith(client, s, password); err != nil || code != want {
					t.Errorf("%s, %s: password %q: %d, %v, want %d", step.what, name, password, code, err, want)
				}
			}
		}
		said := w.take()
		if !strings.Contains(said, step.says) || (said == "") != (step.says == "") || strings.Contains(said, "\n") || len(said) > 500 {
			t.Errorf("%s: it says %q, want %q", step.what, said, step.says)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	kept.CloseIdleConnections()
	testutil.Eventually(t, "the copy is closed", func() bool { return copies(t) == 0 })
}

// The copy says what the file does: names that YAML has another meaning for, merged sections, and what is given twice.
func TestConfigCopied(t *testing.T) {
	dir, roots := certificate(t)
	cert, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"yes", "on", "y", "007", "1e3", "0x1F", "1_000", "1234", "2024-01-01", "a b", "prometheus"}
	var users strings.Builder
	users.WriteString("basic_auth_users:\n")
	for _, name := range names {
		users.WriteString("  " + name + ": " + quickHash + "\n")
	}
	const headers = "http_server_config:\n  headers:\n    Content-Security-Policy: yes\n"
	for name, text := range map[string]string{
		"plain": "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n",
		"merge": "tls_server_config:\n  <<: {cert_file: cert.pem, key_file: key.pem}\n",
		"twice": "tls_server_config:\n  cert: nothing\n  cert_file: cert.pem\n  key_file: key.pem\n",
		"inline": "tls_server_config:\n  cert: |\n    " + strings.ReplaceAll(strings.TrimSpace(string(cert)), "\n", "\n    ") +
			"\n  key_file: key.pem\n  min_version: TLS13\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text+users.String()+headers), 0o600); err != nil {
			t.Fatal(err)
		}
		s := start(t, Options{Address: "127.0.0.1:0", WebConfig: path}, headerTime, idleTime)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
		for _, user := range append(names, "true", "7", "") {
			req, err := http.NewRequest("GET", s.URL("/"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth(user, "fakepassword")
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			resp.Body.Close()
			if known := slices.Contains(names, user); (resp.StatusCode == http.StatusOK) != known || resp.TLS == nil {
				t.Errorf("%s: user %q: %s", name, user, resp.Status)
			}
			if got := resp.Header.Get("Content-Security-Policy"); got != "yes" {
				t.Errorf("%s: header %q", name, got)
			}
		}
		transport.CloseIdleConnections()
		if resp, err := http.Get("http://" + s.Addr().String()); err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: plain HTTP: %s", name, resp.Status)
			}
		}
	}
}

// A configuration with all of the keys that there are has a copy.
func TestConfigKeys(t *testing.T) {
	dir, _ := certificate(t)
	path := filepath.Join(dir, "web.yml")
	const text = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n  client_ca_file: cert.pem\n" +
		"  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [yes, 007]\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n" +
		"  prefer_server_cipher_suites: false\n  curve_preferences: [X25519]\n  min_version: TLS12\n  max_version: TLS13\n" +
		"http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n" +
		"rate_limit:\n  interval: 1m\n  burst: 20\nbasic_auth_users:\n  a: " + quickHash + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readConfig(path)
	if err != nil || !c.tls || !c.known || len(c.named) != 3 {
		t.Errorf("%+v, %v", c, err)
	}
	l, err := openConfig(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}

// A hash that takes hours to check is refused before anybody asks.
func TestConfigHashes(t *testing.T) {
	for hash, want := range map[string]string{
		strings.Replace(quickHash, "$04$", "$31$", 1): `basic_auth_users: "a": the bcrypt cost is 31, the most is 15`,
		strings.Replace(quickHash, "$04$", "$16$", 1): `the bcrypt cost is 16`,
		strings.Replace(quickHash, "$04$", "$15$", 1): "",
	} {
		path := filepath.Join(t.TempDir(), "web.yml")
		if err := os.WriteFile(path, []byte("basic_auth_users:\n  a: "+hash+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readConfig(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", hash, err, want)
		}
	}
}

// A client that asks all the time while a configuration is written again and again, in place, is let in never.
func TestConfigWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.yml")
	var text strings.Builder
	text.WriteString("basic_auth_users:\n")
	for _, name := range []string{"a", "b", "c", "prometheus"} {
		text.WriteString("  " + name + ": " + quickHash + "\n")
	}
	write := func() {
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
	write()
	s := start(t, Options{Address: "127.0.0.1:0", WebConfig: path}, headerTime, idleTime)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 300 {
			write()
		}
	}()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for writing := true; writing; {
		select {
		case <-done:
			writing = false
		default:
		}
		if code, err := askWith(client, s, ""); err != nil || code != http.StatusUnauthorized {
			t.Fatalf("no password: %d, %v", code, err)
		}
	}
}

// copies counts the open copies of web configurations.
func copies(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.Contains(to, "web-configuration") {
			n++
		}
	}
	return n
}
