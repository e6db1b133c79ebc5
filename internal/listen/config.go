package listen

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/unpack"
)

// maxConfig is the largest web configuration, certificate or key, in bytes.
const maxConfig = 1 << 20

// webConfig is what a web configuration says.
type webConfig struct {
	// tls says that there is TLS, known that clients have to have a password or a certificate.
	tls, known bool
	// named are the files that it names.
	named []string
	// text is the configuration with what these files have in their place.
	text []byte
}

// readConfig reads a web configuration and the files that it names. With an error its named are those
// that could be seen.
func readConfig(path string) (webConfig, error) {
	var c webConfig
	b, err := unpack.ReadFile(path, maxConfig)
	if err != nil {
		if p, ok := errors.AsType[*os.PathError](err); ok {
			err = p.Err
		}
		return c, err
	}
	var says web.Config
	if err := yaml.UnmarshalStrict(b, &says); err != nil {
		return c, err
	}
	var all yaml.MapSlice
	if err := yaml.Unmarshal(b, &all); err != nil {
		return c, err
	}
	c.known = len(says.Users) > 0
	at := slices.IndexFunc(all, func(item yaml.MapItem) bool { return item.Key == "tls_server_config" })
	if at >= 0 && all[at].Value != nil {
		t := says.TLSConfig
		if !t.IsEnabled() { // what serves it takes an empty section for none
			return c, errors.New("tls_server_config has no certificate: cert_file, key_file")
		}
		c.tls = true
		// Without a CA of its own all that the system trusts is let in.
		c.known = c.known || t.ClientAuth == "RequireAndVerifyClientCert" && (t.ClientCAs != "" || t.ClientCAsText != "")
		section, _ := all[at].Value.(yaml.MapSlice)
		t.SetDirectory(filepath.Dir(path))
		if err := c.embed(section, t); err != nil {
			return c, err
		}
	}
	c.text, err = yaml.Marshal(all)
	return c, err
}

// embed puts what files have where the section for TLS names them. The paths are those of t.
func (c *webConfig) embed(section yaml.MapSlice, t web.TLSConfig) error {
	files := []struct{ key, path, inline string }{
		{"cert_file", t.TLSCertPath, "cert"}, {"key_file", t.TLSKeyPath, "key"}, {"client_ca_file", t.ClientCAs, "client_ca"},
	}
	for _, file := range files {
		if file.path != "" {
			c.named = append(c.named, file.path)
		}
	}
	for _, file := range files {
		at := slices.IndexFunc(section, func(item yaml.MapItem) bool { return item.Key == file.key })
		if at < 0 || file.path == "" {
			continue
		}
		b, err := unpack.ReadFile(file.path, maxConfig)
		if err != nil {
			return fmt.Errorf("%s: %w", file.key, err)
		}
		section[at] = yaml.MapItem{Key: file.inline, Value: string(b)}
	}
	return nil
}

// liveConfig is a web configuration as it is served: a copy of the last one that was right.
//
// The toolkit reads it anew for each connection and request, from the copy. The files themselves are
// read here, with limits, when they have changed. What is wrong, or lets in whoever comes where the
// one before did not, as a file that is being written may, is told and changes nothing.
type liveConfig struct {
	path string
	warn func(string)

	mu     sync.Mutex
	fd     int // a memfd with the copy, -1 when it is closed
	config webConfig
	files  []string // that the last try read
	seen   []stamp  // of these files; nil when it failed, or when they may have changed since
	said   string   // the last warning
}

// openConfig reads a web configuration. warn may be nil.
func openConfig(path string, warn func(string)) (*liveConfig, error) {
	l := &liveConfig{path: path, warn: warn, fd: -1, files: []string{path}}
	var err error
	l.config, l.fd, err = l.read()
	return l, err
}

// name is the file that has the copy.
func (l *liveConfig) name() string { return procFD(l.fd) }

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// read reads the configuration into a new memfd, and notes what it read.
func (l *liveConfig) read() (config webConfig, fd int, err error) {
	began, before := time.Now(), stamps(l.files)
	config, err = readConfig(l.path)
	known := l.files
	l.files, l.seen = append([]string{l.path}, config.named...), nil
	if err != nil {
		return config, -1, err
	}
	fd, err = memfd(config.text)
	if err != nil {
		return config, -1, err
	}
	if err := web.Validate(procFD(fd)); err != nil {
		return config, -1, errors.Join(err, unix.Close(fd))
	}
	after := stamps(l.files)
	lately := func(s stamp) bool { return s.since(began) }
	if slices.Equal(l.files, known) && slices.Equal(after, before) && !slices.ContainsFunc(after, lately) {
		l.seen = after
	}
	return config, fd, nil
}

// memfd is a file in memory.
func memfd(b []byte) (fd int, err error) {
	fd, err = unix.MemfdCreate("web-configuration", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("copy it: %w", os.NewSyscallError("memfd_create", err))
	}
	for err == nil && len(b) > 0 {
		var n int
		n, err = unix.Write(fd, b)
		b = b[max(n, 0):]
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("copy it: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// refresh takes what is in the files when they have changed.
func (l *liveConfig) refresh() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 || l.seen != nil && slices.Equal(l.seen, stamps(l.files)) {
		return
	}
	config, fd, err := l.read()
	switch {
	case err != nil:
	case l.config.known && !config.known:
		err = errors.New("it asks for neither a password nor a certificate of the client any more")
	case l.config.tls != config.tls:
		err = errors.New("TLS begins and ends with the server")
	default:
		// Who opens the copy has the one before or this one, whole.
		if err = os.NewSyscallError("dup3", unix.Dup3(fd, l.fd, unix.O_CLOEXEC)); err != nil {
			l.seen = nil
		}
	}
	if fd >= 0 {
		err = errors.Join(err, unix.Close(fd))
	}
	said := ""
	if err == nil {
		l.config = config
	} else {
		said = fmt.Sprintf("web configuration %s: the one before stays: %v", l.path, err)
	}
	if said != "" && said != l.said && l.warn != nil {
		l.warn(said)
	}
	l.said = said
}

// close ends the copy. Nobody may read it any more. l may be nil.
func (l *liveConfig) close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fd := l.fd
	l.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// stamp tells a file from another one, and from what was in it before.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
	missing      bool
}

func stamps(files []string) []stamp {
	out := make([]stamp, len(files))
	for i, file := range files {
		var s unix.Stat_t
		if err := unix.Stat(file, &s); err != nil {
			out[i].missing = true
			continue
		}
		out[i] = stamp{dev: s.Dev, ino: s.Ino, size: s.Size, mtime: s.Mtim, ctime: s.Ctim}
	}
	return out
}

// since says whether a file may have changed later than shortly before t: clocks of file systems are coarse.
func (s stamp) since(t time.Time) bool {
	return time.Unix(s.ctime.Unix()).After(t.Add(-time.Second))
}
