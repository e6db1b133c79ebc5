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
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"
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
)

// Options of a server. Address is required.
type Options struct {
	// Address is "host:port". Without a host, and of a port alone, it is the loopback.
	Address string
	// WebConfig is the path of a Prometheus web configuration file: certificates,
	// client certificates, users with bcrypt hashes of their passwords
	// (prometheus.io/docs/prometheus/latest/configuration/https). "" is plain HTTP.
	// It and the files that it names may change at any time, and hold from the next connection
	// or request on. One that is wrong, or that asks clients for nothing any more, is not taken.
	WebConfig string
	// Warn is told why a web configuration is not taken, from any goroutine. It may be nil.
	Warn func(string)
}

// Server serves until its context ends, or it is closed.
type Server struct {
	server   *http.Server
	listener net.Listener
	// tls says whether there is TLS, known whether clients have to say who they are.
	tls, known bool
	config     *liveConfig // nil without one
	// connections are those that may read it.
	connections sync.WaitGroup
	done        chan error
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
	var config *liveConfig
	if o.WebConfig != "" {
		if config, err = openConfig(o.WebConfig, o.Warn); err != nil {
			return nil, fmt.Errorf("read web configuration %s: %w", o.WebConfig, err)
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, errors.Join(err, config.close()) // it says listen, and the address
	}
	// A connection of HTTP/2 has 250 requests at a time and queues more, all of which hold memory until their passwords are
	// checked, also when the connection has ended.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	s := &Server{
		listener: netutil.LimitListener(l, Connections), config: config, done: make(chan error, 1),
		server: &http.Server{
			Handler: h, ReadHeaderTimeout: header, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idle,
			MaxHeaderBytes: headerSize, Protocols: &protocols,
			// Each failed handshake of a stranger would be a line.
			ErrorLog: log.New(io.Discard, "", 0),
		},
	}
	copied := ""
	if config != nil {
		copied, s.tls, s.known = config.name(), config.config.tls, config.config.known
		s.server.ConnState = s.refresh
	}
	none, systemd := []string{}, false
	flags := &web.FlagConfig{WebListenAddresses: &none, WebSystemdSocket: &systemd, WebConfigFile: &copied}
	go func() { s.done <- web.Serve(s.listener, s.server, flags, slog.New(slog.DiscardHandler)) }()
	s.closing = sync.OnceValue(s.close)
	// From then on, so that what else its end waits for is waited for at the same time.
	context.AfterFunc(ctx, func() { _ = s.closing() }) // Close returns the error
	return s, nil
}

// Files are those that a server with these options reads: the web configuration and what it
// names, as far as it can be read.
func (o Options) Files() []string {
	if o.WebConfig == "" {
		return nil
	}
	files := []string{o.WebConfig}
	config, _ := readConfig(o.WebConfig) // an error is that of Serve
	return append(files, config.named...)
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
	err := <-s.done
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.connections.Wait()
		_ = s.config.close() // a file in memory
	}()
	select {
	case <-closed:
	case <-ctx.Done(): // what a request does may take longer
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.Addr(), err)
	}
	return nil
}

// refresh looks whether the web configuration has changed before a connection begins and before a request is answered.
func (s *Server) refresh(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.connections.Add(1)
		s.config.refresh()
	case http.StateActive:
		s.config.refresh()
	case http.StateClosed, http.StateHijacked:
		s.connections.Done()
	}
}
