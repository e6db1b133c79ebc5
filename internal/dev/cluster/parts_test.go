package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"testing"
)

// A certificate is its authority's, for its addresses and no other, and belongs to its key.
func TestAuthority(t *testing.T) {
	ca, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.issue("kube-apiserver", "system:masters", net.IPv4(10, 77, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca.pem()))
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "10.77.0.1"}); err != nil {
		t.Error(err)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "10.77.0.2"}); err == nil {
		t.Error("it is for another address, too")
	}
	if s := pair.Leaf.Subject; s.CommonName != "kube-apiserver" || len(s.Organization) != 1 || s.Organization[0] != "system:masters" {
		t.Errorf("it is of %v", s)
	}
}

// What is made is made once for one key, and nothing stays of what failed.
func TestOnce(t *testing.T) {
	cache := t.TempDir()
	runs := 0
	create := func(fail error) func(string) error {
		return func(to string) error {
			runs++
			return errors.Join(os.WriteFile(to, []byte("made"), 0o600), fail)
		}
	}
	failed := errors.New("failed")
	if _, err := once(cache, "name", ".tar", []string{"a"}, create(failed)); !errors.Is(err, failed) {
		t.Fatalf("error %v", err)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) != 0 {
		t.Errorf("left is %v, %v", left, err)
	}
	var files []string
	for _, key := range []string{"a", "a", "b"} {
		file, err := once(cache, "name", ".tar", []string{key}, create(nil))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if runs != 3 || files[0] != files[1] || files[0] == files[2] {
		t.Errorf("%d runs made %q", runs, files)
	}
}
