package listen

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/unpack"
)

const (
	// maxConfig is the largest web configuration, certificate or key, in bytes.
	maxConfig = 1 << 20
	// retry is how long a configuration that failed is left alone, unless its files change.
	retry = 10 * time.Second
	// maxCost is the largest bcrypt cost: a password took 2.3 s of CPU time with 15, and 0.07 s with the usual 10.
	maxCost = 15
)

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
	for name, hash := range says.Users {
		// A hash that is none is refused by what serves it.
		if cost, err := bcrypt.Cost([]byte(hash)); err == nil && cost > maxCost {
			return c, fmt.Errorf("basic_auth_users: %q: the bcrypt cost is %d, the most is %d: any client could keep a CPU busy",
				name, cost, maxCost)
		}
	}
	c.known = len(says.Users) > 0
	var all map[string]any
	if err := yaml.Unmarshal(b, &all); err != nil {
		return c, err
	}
	if section, ok := all["tls_server_config"]; ok && section != nil {
		t := &says.TLSConfig
		if !t.IsEnabled() { // what serves it takes an empty section for none
			return c, errors.New("tls_server_config has no certificate: cert_file, key_file")
		}
		c.tls = true
		// Without a CA of its own all that the system trusts is let in.
		c.known = c.known || t.ClientAuth == "RequireAndVerifyClientCert" && (t.ClientCAs != "" || t.ClientCAsText != "")
		t.SetDirectory(filepath.Dir(path))
		if err := c.embed(t); err != nil {
			return c, err
		}
	}
	c.text, err = copied(all, says)
	return c, err
}

// embed puts what files have in the place of their names.
func (c *webConfig) embed(t *web.TLSConfig) error {
	files := []struct {
		key  string
		path *string
		set  func(string)
	}{
		{"cert_file", &t.TLSCertPath, setter(&t.TLSCert)}, {"key_file", &t.TLSKeyPath, setter(&t.TLSKey)},
		{"client_ca_file", &t.ClientCAs, setter(&t.ClientCAsText)},
	}
	for _, file := range files {
		if *file.path != "" {
			c.named = append(c.named, *file.path)
		}
	}
	for _, file := range files {
		if *file.path == "" {
			continue
		}
		b, err := unpack.ReadFile(*file.path, maxConfig)
		if err != nil {
			return fmt.Errorf("%s: %w", file.key, err)
		}
		*file.path = ""
		file.set(string(b))
	}
	return nil
}

func setter[T ~string](to *T) func(string) { return func(text string) { *to = T(text) } }

// copied is the text of a configuration, from its sections and what they say with files embedded. YAML's own
// types are not the toolkit's, to which each name of a user and each header is a text: the copy has to say
// the same to it.
func copied(all map[string]any, says web.Config) ([]byte, error) {
	if says.Users != nil {
		users := make(map[string]string)
		for name, hash := range says.Users {
			users[name] = string(hash)
		}
		all["basic_auth_users"] = users
	}
	if section, ok := all["http_server_config"].(map[any]any); ok && says.HTTPConfig.Header != nil {
		section["headers"] = says.HTTPConfig.Header
	}
	if section, ok := all["tls_server_config"].(map[any]any); ok {
		t := says.TLSConfig
		for key, text := range map[string]string{"cert": t.TLSCert, "key": string(t.TLSKey), "client_ca": t.ClientCAsText} {
			delete(section, key+"_file")
			if text != "" {
				section[key] = text
			}
		}
		if t.ClientAllowedSans != nil {
			section["client_allowed_sans"] = t.ClientAllowedSans
		}
	}
	text, err := yaml.Marshal(all)
	if err != nil {
		return nil, err
	}
	var again web.Config
	if err := yaml.UnmarshalStrict(text, &again); err != nil || !reflect.DeepEqual(again, says) {
		return nil, errors.New("it cannot be copied: give its values as plain texts, numbers and lists")
	}
	return text, nil
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
	files  []string  // that the last try read
	seen   []stamp   // of these files; nil when they may have changed since
	failed time.Time // when it failed, zero when it did not
	said   string    // the last warning
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
	after := stamps(l.files)
	lately := func(s stamp) bool { return s.since(began) }
	if slices.Equal(l.files, known) && slices.Equal(after, before) && !slices.ContainsFunc(after, lately) {
		l.seen = after
	}
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
	again := !l.failed.IsZero() && time.Since(l.failed) > retry // it may have been for want of files or memory
	if l.fd < 0 || !again && l.seen != nil && slices.Equal(l.seen, stamps(l.files)) {
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
		err = os.NewSyscallError("dup3", unix.Dup3(fd, l.fd, unix.O_CLOEXEC))
	}
	if fd >= 0 {
		err = errors.Join(err, unix.Close(fd))
	}
	said := ""
	if l.failed = (time.Time{}); err == nil {
		l.config = config
	} else {
		l.failed = time.Now()
		why := strings.Join(strings.Fields(err.Error()), " ") // YAML has a line for each of what is wrong
		said = fmt.Sprintf("web configuration %s: the one before stays: %.300s", l.path, why)
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
