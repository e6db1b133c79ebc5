package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/unpack"
)

// Limits of what waits for a server that is away: a year of weekly records.
const (
	MaxSpooled      = 64
	maxSpooledBytes = 64 << 20
	// postTime is how long one record may take.
	postTime = 10 * time.Second
	// maxSecret is the largest token file or certificate, in bytes.
	maxSecret = 1 << 20
)

// Post sends records to a server. What the server does not take now waits in a folder.
type Post struct {
	// URL is where records are posted to, TokenFile holds a bearer token, CAFile certificates that the server's is
	// to be signed by; the last two may be empty.
	URL, TokenFile, CAFile string
	// Spool is the folder in which records wait.
	Spool string
}

// Check refuses what cannot be meant, and a token that would cross a network in the clear.
func (p Post) Check() error {
	u, err := url.Parse(p.URL)
	switch {
	case err != nil:
		return errors.New("the URL cannot be read")
	case u.User != nil:
		return errors.New("a password in a URL is seen by every user of the machine: give a token by --token-file")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%s is not an address http://… or https://…", u.Redacted())
	case p.TokenFile != "" && u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("a token would cross the network in the clear: use https")
	}
	for _, file := range []string{p.TokenFile, p.CAFile} {
		if file == "" {
			continue
		}
		if _, err := unpack.ReadFile(file, maxSecret); err != nil {
			return fmt.Errorf("read %s: %w", file, cause(err))
		}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func cause(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// Add puts a record into the spool. It returns how many older ones had to go.
func (p Post) Add(name string, b []byte) (dropped int, err error) {
	if err := os.MkdirAll(p.Spool, 0o700); err != nil {
		return 0, fmt.Errorf("keep record for %s: %w", p.Spool, err)
	}
	if err := p.checkSpool(); err != nil {
		return 0, err
	}
	if err := outfile.Replace(filepath.Join(p.Spool, name), b); err != nil {
		return 0, err
	}
	files, err := p.waiting()
	if err != nil {
		return 0, err
	}
	size := int64(0)
	for i := len(files) - 1; i >= 0; i-- { // the newest first: it always stays
		info, err := os.Stat(files[i])
		if err != nil {
			continue
		}
		size += info.Size()
		if kept := len(files) - 1 - i; kept > 0 && (kept >= MaxSpooled || size > maxSpooledBytes) {
			if os.Remove(files[i]) == nil {
				dropped++
			}
		}
	}
	return dropped, nil
}

// checkSpool refuses a spool that is a link: what is at its other end would be sent, and removed.
func (p Post) checkSpool() error {
	info, err := os.Lstat(p.Spool)
	if err == nil && !info.IsDir() {
		err = errors.New("it is not a folder")
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open the folder of records that wait, %s: %w", p.Spool, cause(err))
	}
	return nil
}

// waiting are the records in the spool, the oldest first: their names begin with the time. What is no regular file is none: a
// link would lead to what others may not see, and a pipe would hold up the records behind it.
func (p Post) waiting() ([]string, error) {
	if p.Spool == "" { // no server: the folder would be the one that the process is in
		return nil, nil
	}
	if err := p.checkSpool(); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(globEscaper.Replace(p.Spool), "*.json"))
	return slices.DeleteFunc(files, func(file string) bool {
		info, err := os.Lstat(file)
		return err != nil || !info.Mode().IsRegular()
	}), err
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// Waiting is how many records are in the spool.
func (p Post) Waiting() int {
	files, _ := p.waiting()
	return len(files)
}

// errRefused says that a server will never take a record.
type errRefused struct{ status string }

func (e errRefused) Error() string { return "the server refuses it: " + e.status }

// Send sends what is in the spool, the oldest first, until one cannot be sent. What the server will never take is put aside:
// NAME.json.refused. It returns how many were; the error says why records wait, or were refused.
func (p Post) Send(ctx context.Context) (refused int, err error) {
	files, err := p.waiting()
	if err != nil || len(files) == 0 {
		return 0, err
	}
	client, err := p.client()
	if err != nil {
		return 0, err
	}
	defer client.CloseIdleConnections()
	var aside error
	for _, file := range files {
		err := p.send(ctx, client, file)
		var never errRefused
		switch {
		case errors.As(err, &never):
			if moved := p.putAside(file); moved != nil {
				return refused, errors.Join(err, moved)
			}
			refused++
			aside = err
		case err != nil:
			return refused, err
		default:
			if err := os.Remove(file); err != nil {
				return refused, fmt.Errorf("remove record that was sent: %w", err)
			}
		}
	}
	return refused, aside
}

// putAside renames a record that the server refuses. Of those the newest [MaxSpooled] stay.
func (p Post) putAside(file string) error {
	if err := os.Rename(file, file+".refused"); err != nil {
		return fmt.Errorf("put record aside: %w", err)
	}
	all, err := filepath.Glob(filepath.Join(globEscaper.Replace(p.Spool), "*.json.refused"))
	for _, old := range all[:max(0, len(all)-MaxSpooled)] {
		err = errors.Join(err, os.Remove(old))
	}
	return err
}

// client is one that trusts the given certificates and follows no redirection, which could lead a token elsewhere.
func (p Post) client() (*http.Client, error) {
	transport := &http.Transport{
		Proxy: proxy, TLSHandshakeTimeout: postTime, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if p.CAFile != "" {
		pem, err := unpack.ReadFile(p.CAFile, maxSecret)
		if err != nil {
			return nil, fmt.Errorf("read certificates: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificates %s: there are none", p.CAFile)
		}
	}
	return &http.Client{
		Transport: transport, Timeout: postTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// proxy is that of the environment for https alone, through which the proxy sees the server's name and no record.
func proxy(request *http.Request) (*url.URL, error) {
	if request.URL.Scheme != "https" {
		return nil, nil
	}
	return http.ProxyFromEnvironment(request)
}

// SendAlone sends one record that could not be put into the spool. It returns an error when the server does not take it.
func (p Post) SendAlone(ctx context.Context, name string, b []byte) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	return p.post(ctx, client, name, b)
}

func (p Post) send(ctx context.Context, client *http.Client, file string) error {
	b, err := unpack.ReadFileNoFollow(file, maxSpooledBytes)
	if err != nil {
		return fmt.Errorf("read record: %w", err)
	}
	return p.post(ctx, client, filepath.Base(file), b)
}

func (p Post) post(ctx context.Context, client *http.Client, name string, b []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(b))
	if err != nil {
		return errors.New("post record: the URL cannot be read")
	}
	request.Header.Set("Content-Type", "application/json")
	if p.TokenFile != "" {
		token, err := unpack.ReadFile(p.TokenFile, maxSecret)
		if err != nil {
			return fmt.Errorf("read token: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(token)))
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("post record: %w", err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	switch code := answer.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity:
		return fmt.Errorf("post record %s: %w", name, errRefused{answer.Status})
	}
	return fmt.Errorf("post record: the server says %s", answer.Status) // a token, an address, a proxy can be put right
}
