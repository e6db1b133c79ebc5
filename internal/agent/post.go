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
	"net/http/httptrace"
	"net/url"
	"os"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/unpack"
)

const (
	// postTime is how long one record may take, dialTime the part of it that the connection may.
	postTime = 10 * time.Second
	dialTime = postTime / 2
	// maxSecret is the largest token file or certificate, in bytes.
	maxSecret = 1 << 20
	// maxStatus is how much of a server's status is told, in characters.
	maxStatus = 100
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

// client is one that trusts the given certificates and follows no redirection, which could lead a token elsewhere.
func (p Post) client() (*http.Client, error) {
	transport := &http.Transport{
		Proxy: proxy, DialContext: (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSHandshakeTimeout: postTime, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
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

// errNever says why a record will never be sent.
type errNever struct{ error }

// errBroken says why there was no answer, in the room of a line: the server may have chosen its words.
type errBroken struct {
	error
	// bySize tells whether a smaller record may come through: there was a connection, and it broke, or took too long, with nothing
	// said on it.
	bySize bool
}

func (e errBroken) Error() string {
	return record.Text(e.error.Error(), maxLine, unicode.ReplacementChar)
}
func (e errBroken) Unwrap() error { return e.error }

// bySize tells whether a smaller record may come through where one did not. None does where there was no connection, as its
// handshake failed or no certificate vouches for the server, or where the answer cannot be read.
func bySize(err error) bool {
	broken, ok := errors.AsType[errBroken](err)
	return ok && broken.bySize
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

// post sends a record, and returns an errNever when the server will never take it.
func (p Post) post(ctx context.Context, client *http.Client, name string, b []byte) error {
	var silent atomic.Bool // there is a connection, whose handshakes are over, and no answer on it
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:              func(string) { silent.Store(false) }, // again where one that was kept is closed
		GotConn:              func(httptrace.GotConnInfo) { silent.Store(true) },
		GotFirstResponseByte: func() { silent.Store(false) },
	})
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
		if of, ok := errors.AsType[*url.Error](err); ok {
			of.Err = errBroken{of.Err, silent.Load()}
		}
		return fmt.Errorf("post record: %w", err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	status := record.Text(answer.Status, maxStatus, unicode.ReplacementChar)
	switch code := answer.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity:
		return errNever{fmt.Errorf("post record %s: the server refuses it: %s", name, status)}
	}
	return fmt.Errorf("post record: the server says %s", status) // a token, an address, a proxy can be put right
}
