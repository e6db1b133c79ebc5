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
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/unpack"
)

// Limits of what fleet ingest --listen reads.
const (
	maxToken  = 4 << 10
	maxPosted = 8 << 20
	// maxPending is how many bytes of bodies are on their way into the store at a time: other requests wait.
	maxPending = 2 * maxPosted
	// reserved are the bytes that a body has room for at a time: a record has some 16 KiB.
	reserved = 64 << 10
	// maxRefused is how many documents of a request are refused before the others are not read.
	maxRefused = 1000
	// waitsForMore is how long a body waits for room that has some: others may wait for what it has.
	waitsForMore = 2 * time.Second
)

// errNoRoom is that there was none for the rest of a body.
var errNoRoom = errors.New("other requests take all the room")

// receiver puts the records that agents post into a store.
type receiver struct {
	store *fleet.Store
	// token is the SHA-256 of what clients have to send, nil when they need none.
	token *[sha256.Size]byte
	// pending has maxPending.
	pending *semaphore.Weighted
	// wait is waitsForMore.
	wait time.Duration
	// warn takes a line about clients that are not let in, one a minute at most.
	warn   func(string)
	mu     sync.Mutex
	warned time.Time
	others int // that were not let in since
}

// newReceiver reads the token from a file; "" is none.
func newReceiver(store *fleet.Store, tokenFile string, warn func(string)) (*receiver, error) {
	r := &receiver{store: store, pending: semaphore.NewWeighted(maxPending), wait: waitsForMore, warn: warn}
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

// body is what a client sends. It takes room of pending as its bytes come, so that a slow client holds little of it.
type body struct {
	io.Reader
	ctx     context.Context
	pending *semaphore.Weighted
	wait    time.Duration // for more room, where it has some
	read    int64         // bytes
	room    int64         // that it took
	mu      sync.Mutex    // of what follows: a read may last longer than the request
	closed  bool
	held    int64 // room to give back
	err     error // why it could not be read to its end
}

func (b *body) Read(p []byte) (int, error) {
	n, err := 0, error(nil)
	if b.read == b.room {
		err = b.take()
	}
	if err == nil {
		n, err = b.Reader.Read(p[:min(int64(len(p)), b.room-b.read)])
		b.read += int64(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

// take takes room for the next bytes.
func (b *body) take() error {
	ctx := b.ctx
	if b.read > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.wait)
		defer cancel()
	}
	if b.pending.Acquire(ctx, reserved) != nil {
		return errNoRoom
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed { // the request was answered meanwhile
		b.pending.Release(reserved)
		return errNoRoom
	}
	b.held += reserved
	b.room += reserved
	return nil
}

// close gives all room back, and says why the body could not be read to its end.
func (b *body) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.pending.Release(b.held)
	return b.err
}

// notLetIn warns of a client without the token.
func (r *receiver) notLetIn(req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.others++; time.Since(r.warned) < time.Minute {
		return
	}
	r.warn(fmt.Sprintf("%s sends another token than that of --token-file, or none: %s answered 401", req.RemoteAddr,
		cells.Plural(r.others, "request")))
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
	sent := &body{Reader: http.MaxBytesReader(w, req.Body, maxPosted), ctx: req.Context(), pending: r.pending, wait: r.wait}
	in := fleet.Ingest{Store: r.store, In: sent, Now: time.Now(), MaxRefused: maxRefused}
	done, err := in.Run(req.Context(), "-")
	errSent := sent.close()
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, fleet.ErrRefused):
		http.Error(w, fmt.Sprintf("%d documents are refused, the others are not read: %s", maxRefused, refusedFirst(done)), http.StatusBadRequest)
	case errors.Is(errSent, errNoRoom):
		http.Error(w, errNoRoom.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, "the store takes no records now", http.StatusServiceUnavailable)
	case errors.As(errSent, &large):
		http.Error(w, fmt.Sprintf("at most %d MiB are taken", maxPosted>>20), http.StatusRequestEntityTooLarge)
	case errSent != nil:
		http.Error(w, "the request ended before its body", http.StatusRequestTimeout)
	case len(done.Rows) > 0:
		http.Error(w, refusedFirst(done), http.StatusBadRequest)
	case done.New+done.Known == 0:
		http.Error(w, "there is no record of agent", http.StatusBadRequest)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// refusedFirst is why a document was refused, in one line.
func refusedFirst(done *record.FleetIngest) string {
	return done.Rows[0].Name + ": " + oneLine(errors.New(done.Rows[0].Example))
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
	o.Warn = warner(s.err)
	server, err := listen.Serve(ctx, o, endedBy(ctx, r))
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
