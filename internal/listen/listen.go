// Package listen serves HTTP/1.1 to clients that are not trusted: a client that is slow,
// idle or many cannot hold the process's memory or descriptors, and TLS and passwords are
// those of a Prometheus web configuration file.
package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
	"golang.org/x/net/netutil"

	"github.com/unthunk/unthunk/internal/unpack"
)

// Limits of a server.
const (
	// Connections is how many are open at a time, and how many requests are served: one of each. More wait in the
	// kernel's queue.
	Connections = 64
	// headerTime, readTime and writeTime are how long a request's header, all of it, and
	// its answer may take.
	headerTime, readTime, writeTime = 5 * time.Second, 10 * time.Second, 30 * time.Second
	// idleTime is how long a connection stays open after an answer. Prometheus asks
	// every 15 s to a minute; a new connection costs it nothing that matters.
	idleTime = 30 * time.Second
	// headerSize is the most bytes of a request's header.
	headerSize = 16 << 10
	// maxConfig is the largest web configuration, certificate or key, in bytes.
	maxConfig = 1 << 20
)

// Options of a server. Address is required.
type Options struct {
	// Address is "host:port". Without a host, and of a port alone, it is the loopback.
	Address string
	// WebConfig is the path of a Prometheus web configuration file: certificates,
	// client certificates, users with bcrypt hashes of their passwords
	// (prometheus.io/docs/prometheus/latest/configuration/https). "" is plain HTTP.
	// Certificates and users are read anew for each connection and request.
	WebConfig string
}

// Server serves until its context ends, or it is closed.
type Server struct {
	server   *http.Server
	listener net.Listener
	// tls says whether there is TLS, known whether clients have to say who they are.
	tls, known bool
	done       chan error
	// closing is done once, by whoever is first.
	closing func() error
}

// Host adds the loopback to an address that has no host: a port, with a colon or without.
func Host(address string) (string, error) {
	if _, err := strconv.ParseUint(address, 10, 16); err == nil {
		address = ":" + address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// Serve serves h until ctx ends or the server is closed, which it has to be in any case.
func Serve(ctx context.Context, o Options, h http.Handler) (*Server, error) {
	return serve(ctx, o, h, headerTime, idleTime)
}

func serve(ctx context.Context, o Options, h http.Handler, header, idle time.Duration) (*Server, error) {
	address, err := Host(o.Address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	config, err := checkConfig(o.WebConfig)
	if err != nil {
		return nil, fmt.Errorf("read web configuration %s: %w", o.WebConfig, err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err // it says listen, and the address
	}
	// A connection of HTTP/2 has 250 requests at a time and queues more, all of which hold memory until their passwords are
	// checked, also when the connection has ended.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	s := &Server{
		listener: netutil.LimitListener(l, Connections), tls: config.tls, known: config.known, done: make(chan error, 1),
		server: &http.Server{
			Handler: h, ReadHeaderTimeout: header, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idle,
			MaxHeaderBytes: headerSize, Protocols: &protocols,
			// Each failed handshake of a stranger would be a line.
			ErrorLog: log.New(io.Discard, "", 0),
		},
	}
	none, systemd := []string{}, false
	flags := &web.FlagConfig{WebListenAddresses: &none, WebSystemdSocket: &systemd, WebConfigFile: &o.WebConfig}
	go func() { s.done <- web.Serve(s.listener, s.server, flags, slog.New(slog.DiscardHandler)) }()
	s.closing = sync.OnceValue(s.close)
	// From then on, so that what else its end waits for is waited for at the same time.
	context.AfterFunc(ctx, func() { _ = s.closing() }) // Close returns the error
	return s, nil
}

// webConfig is what a web configuration says.
type webConfig struct {
	// tls says that there is TLS, known that clients have to have a password or a certificate.
	tls, known bool
	// named are the files that it names.
	named []namedFile
}

// namedFile is a file that a web configuration names by a key.
type namedFile struct{ key, path string }

// checkConfig refuses a web configuration that is wrong.
func checkConfig(path string) (webConfig, error) {
	if path == "" {
		return webConfig{}, nil
	}
	config, err := readConfig(path)
	if err != nil {
		return config, err
	}
	// What it names is read whole, too: at the start, and for each connection.
	for _, file := range config.named {
		f, _, err := unpack.Open(file.path, maxConfig)
		if err != nil {
			return config, fmt.Errorf("%s: %w", file.key, err)
		}
		f.Close()
	}
	return config, web.Validate(path)
}

// readConfig reads a web configuration.
func readConfig(path string) (config webConfig, err error) {
	b, err := unpack.ReadFile(path, maxConfig)
	if err != nil {
		if p, ok := errors.AsType[*os.PathError](err); ok {
			err = p.Err
		}
		return config, err
	}
	var c struct {
		Users map[string]string `yaml:"basic_auth_users"`
		TLS   *struct {
			Cert    string `yaml:"cert_file"`
			Inline  string `yaml:"cert"`
			Key     string `yaml:"key_file"`
			CA      string `yaml:"client_ca_file"`
			Clients string `yaml:"client_auth_type"`
		} `yaml:"tls_server_config"`
	}
	if err := yaml.Unmarshal(b, &c); err != nil {
		return config, err
	}
	config.known = len(c.Users) > 0
	if c.TLS == nil {
		return config, nil
	}
	if c.TLS.Cert == "" && c.TLS.Inline == "" && c.TLS.CA == "" { // what serves it takes an empty section for none
		return config, errors.New("tls_server_config has no certificate: cert_file, key_file")
	}
	config.tls = true
	config.known = config.known || c.TLS.Clients == "RequireAndVerifyClientCert" && c.TLS.CA != "" // without, all that the system trusts
	for _, f := range []namedFile{{"cert_file", c.TLS.Cert}, {"key_file", c.TLS.Key}, {"client_ca_file", c.TLS.CA}} {
		if f.path == "" {
			continue
		}
		if !filepath.IsAbs(f.path) {
			f.path = filepath.Join(filepath.Dir(path), f.path)
		}
		config.named = append(config.named, f)
	}
	return config, nil
}

// Files are those that a server with these options reads: the web configuration and what it
// names, as far as it can be read.
func (o Options) Files() []string {
	if o.WebConfig == "" {
		return nil
	}
	files := []string{o.WebConfig}
	config, _ := readConfig(o.WebConfig) // an error is that of Serve
	for _, f := range config.named {
		files = append(files, f.path)
	}
	return files
}

// Addr is the address that the server got.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// URL is the address of a path on the server.
func (s *Server) URL(path string) string {
	scheme := "http"
	if s.tls {
		scheme = "https"
	}
	return scheme + "://" + s.Addr().String() + path
}

// Open says whether others than this machine's processes can reach a server that has
// neither TLS nor passwords.
func (s *Server) Open(o Options) bool {
	return o.WebConfig == "" && s.reachable()
}

// OpenToAll says whether others than this machine's processes can reach a server that asks for neither a password nor a
// certificate.
func (s *Server) OpenToAll() bool { return !s.known && s.reachable() }

// reachable says whether others than this machine's processes can reach the server.
func (s *Server) reachable() bool {
	address, ok := s.Addr().(*net.TCPAddr)
	return ok && !address.IP.IsLoopback()
}

// Close ends the server: clients have half a second to end what they began, since the context ended where it did. It may be
// called twice.
func (s *Server) Close() error { return s.closing() }

func (s *Server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second/2)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		s.server.Close()
	}
	if err := <-s.done; err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.Addr(), err)
	}
	return nil
}
