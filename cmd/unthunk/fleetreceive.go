package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/listen"
	"github.com/unthunk/unthunk/internal/unpack"
)

// Limits of what fleet ingest --listen reads.
const (
	maxToken  = 4 << 10
	maxPosted = 8 << 20
	// maxPending is how many bytes of bodies are on their way into the store at a time: other requests wait.
	maxPending = 2 * maxPosted
)

// receiver puts the records that agents post into a store.
type receiver struct {
	store *fleet.Store
	// token is the SHA-256 of what clients have to send, nil when they need none.
	token *[sha256.Size]byte
	// pending has maxPending.
	pending *semaphore.Weighted
	// warn takes a line about clients that are not let in, one a minute at most.
	warn   func(string)
	mu     sync.Mutex
	warned time.Time
	others int // that were not let in since
}

// newReceiver reads the token from a file; "" is none.
func newReceiver(store *fleet.Store, tokenFile string, warn func(string)) (*receiver, error) {
	r := &receiver{store: store, pending: semaphore.NewWeighted(maxPending), warn: warn}
	if tokenFile == "" {
		return r, nil
	}
	b, err := unpack.ReadFile(tokenFile, maxToken)
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	if b = bytes.TrimSpace(b); len(b) < 16 {
		return nil, fmt.Errorf("read token %s: it has %d bytes, and 16 at least cannot be guessed", tokenFile, len(b))
	}
	sum := sha256.Sum256(append([]byte("Bearer "), b...))
	r.token = &sum
	return r, nil
}

// body is what a client sends; err is why it could not be read to its end.
type body struct {
	io.Reader
	err error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// notLetIn warns of a client without the token.
func (r *receiver) notLetIn(req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.others++; time.Since(r.warned) < time.Minute {
		return
	}
	r.warn(fmt.Sprintf("%s sends another token than that of --token-file, or none: %d requests were answered 401", req.RemoteAddr, r.others))
	r.warned, r.others = time.Now(), 0
}

// ServeHTTP answers 204 to records that are in the store, 400 to what is no record of agent, and 413 to what is too large. What is
// not application/json is answered 415: a browser sends that to another origin only when the server lets it. The
// agent keeps the record when it answers 408, as it could not be read to its end, or 503, as the store takes none.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	given := sha256.Sum256([]byte(req.Header.Get("Authorization")))
	switch {
	case r.token != nil && subtle.ConstantTimeCompare(given[:], r.token[:]) != 1:
		r.notLetIn(req)
		http.Error(w, "the token is another", http.StatusUnauthorized)
		return
	case req.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "records are posted", http.StatusMethodNotAllowed)
		return
	}
	if kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		http.Error(w, "records are application/json", http.StatusUnsupportedMediaType)
		return
	}
	size := req.ContentLength
	if size < 0 || size > maxPosted {
		size = maxPosted
	}
	if r.pending.Acquire(req.Context(), size) != nil {
		http.Error(w, "no records are taken any more", http.StatusServiceUnavailable)
		return
	}
	defer r.pending.Release(size)
	sent := &body{Reader: http.MaxBytesReader(w, req.Body, maxPosted)}
	in := fleet.Ingest{Store: r.store, In: sent, Now: time.Now()}
	done, err := in.Run(req.Context(), "-")
	var large *http.MaxBytesError
	switch {
	case err != nil:
		http.Error(w, "the store takes no records now", http.StatusServiceUnavailable)
	case errors.As(sent.err, &large):
		http.Error(w, fmt.Sprintf("at most %d MiB are taken", maxPosted>>20), http.StatusRequestEntityTooLarge)
	case sent.err != nil:
		http.Error(w, "the request ended before its body", http.StatusRequestTimeout)
	case len(done.Rows) > 0:
		http.Error(w, done.Rows[0].Name+": "+oneLine(errors.New(done.Rows[0].Example)), http.StatusBadRequest)
	case done.New+done.Known == 0:
		http.Error(w, "there is no record of agent", http.StatusBadRequest)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// endedBy ends the context of requests when ctx ends, too.
func endedBy(ctx context.Context, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		both, cancel := context.WithCancel(req.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		h.ServeHTTP(w, req.WithContext(both))
	})
}

// receive serves until ctx ends.
func receive(ctx context.Context, s std, store *fleet.Store, o listen.Options, tokenFile string) error {
	r, err := newReceiver(store, tokenFile, warner(s.err))
	if err != nil {
		return err
	}
	server, err := listen.Serve(o, endedBy(ctx, r))
	if err != nil {
		return err
	}
	if r.token == nil && server.OpenToAll() {
		return errors.Join(usagef("--listen %s: everybody could put records there: add --token-file, or users to a --web-config", o.Address),
			server.Close())
	}
	fmt.Fprintf(s.err, "records are taken at %s\n", strings.TrimSuffix(server.URL("/"), "/"))
	<-ctx.Done()
	return server.Close()
}
