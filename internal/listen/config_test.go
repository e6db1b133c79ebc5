package listen

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
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
		if said := w.take(); !strings.Contains(said, step.says) || (said == "") != (step.says == "") || strings.Count(said, "\n") > 0 {
			t.Errorf("%s: it says %q, want %q", step.what, said, step.says)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	kept.CloseIdleConnections()
	testutil.Eventually(t, "the copy is closed", func() bool { return copies(t) == 0 })
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
