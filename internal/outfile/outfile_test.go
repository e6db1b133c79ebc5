package outfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

const (
	alice   = 12_345 // the owner of folders
	mallory = 23_456 // another user
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// folder is a new folder of a mode and owner.
func folder(t *testing.T, mode os.FileMode, owner int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "folder")
	must(t, os.Mkdir(dir, 0o700), os.Chmod(dir, mode), os.Chown(dir, owner, owner))
	return dir
}

// ways are Check and Write, and CheckStream and Stream: each pair must agree.
var ways = map[string]func(path, text string) error{
	"Write": func(path, text string) error {
		check, err := Check(path), Write(path, []byte(text))
		return agree(check, err)
	},
	"Stream": func(path, text string) error {
		check := CheckStream(path)
		f, err := Stream(path)
		if err == nil {
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
		return agree(check, err)
	},
}

func agree(check, err error) error {
	if fmt.Sprint(check) != fmt.Sprint(err) {
		return fmt.Errorf("the check says %v, writing says %w", check, err)
	}
	return err
}

// holds is what the file at path is.
func holds(t *testing.T, path, text string, mode os.FileMode, owner uint32) {
	t.Helper()
	b, err := os.ReadFile(path)
	info, errInfo := os.Lstat(path)
	must(t, err, errInfo)
	if string(b) != text {
		t.Errorf("%s holds %q, want %q", path, b, text)
	}
	if info.Mode() != mode || info.Sys().(*syscall.Stat_t).Uid != owner {
		t.Errorf("%s is %v of user %d, want %v of user %d", path, info.Mode(), info.Sys().(*syscall.Stat_t).Uid, mode, owner)
	}
}

// Root does not write through a link that another user put into a folder, nor into a
// file of another user where everybody can write.
func TestForeign(t *testing.T) {
	testutil.Root(t)
	for name, write := range ways {
		for _, mode := range []os.FileMode{os.ModeSticky | 0o777, 0o777, 0o775} {
			dir := folder(t, mode, 0)
			victim := filepath.Join(t.TempDir(), "victim")
			must(t, os.WriteFile(victim, []byte("secret"), 0o600))

			link := filepath.Join(dir, "run.json")
			must(t, os.Symlink(victim, link), os.Lchown(link, mallory, mallory))
			if err := write(link, "x"); err == nil || !strings.Contains(err.Error(), "is not followed") {
				t.Errorf("%s through a foreign link: %v", name, err)
			}
			dangling := filepath.Join(dir, "none.json")
			must(t, os.Symlink(victim+"-new", dangling), os.Lchown(dangling, mallory, mallory))
			if err := write(dangling, "x"); err == nil || !strings.Contains(err.Error(), "is not followed") {
				t.Errorf("%s through a foreign link to nothing: %v", name, err)
			}
			// The link may be a folder of the path, and a link may lead to it.
			sub := filepath.Join(dir, "sub")
			must(t, os.Symlink(filepath.Dir(victim), sub), os.Lchown(sub, mallory, mallory))
			own := filepath.Join(t.TempDir(), "own")
			must(t, os.Symlink(sub, own))
			for _, path := range []string{filepath.Join(sub, "victim"), filepath.Join(own, "victim")} {
				if err := write(path, "x"); err == nil || !strings.Contains(err.Error(), "is not followed") {
					t.Errorf("%s in a folder that a foreign link names: %v", name, err)
				}
			}
			file := filepath.Join(dir, "file.json")
			must(t, os.WriteFile(file, []byte("old"), 0o600), os.Chmod(file, 0o666), os.Chown(file, mallory, mallory))
			if err := write(file, "x"); err == nil || !strings.Contains(err.Error(), "belongs to user 23456") {
				t.Errorf("%s into a foreign file: %v", name, err)
			}
			holds(t, victim, "secret", 0o600, 0)
			holds(t, file, "old", 0o666, mallory)
			if _, err := os.Lstat(victim + "-new"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file that a foreign link names was made: %v", err)
			}
		}
	}
}

// A link of the caller, of root or of the folder's owner is followed, and the file it
// leads to keeps its mode and owner.
func TestOwnLink(t *testing.T) {
	testutil.Root(t)
	for name, write := range ways {
		for _, owner := range []int{0, alice} {
			dir := folder(t, 0o755, alice)
			file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
			must(t, os.WriteFile(file, []byte("a longer old text"), 0o600), os.Chmod(file, 0o640), os.Chown(file, alice, alice))
			must(t, os.Symlink("./../folder/file", link), os.Lchown(link, owner, owner))
			must(t, write(link, name))
			holds(t, file, name, 0o640, alice)
			if to, err := os.Readlink(link); err != nil || to != "./../folder/file" {
				t.Errorf("the link is %q, %v", to, err)
			}
			for _, rest := range []string{"file", "link"} {
				must(t, os.Remove(filepath.Join(dir, rest)))
			}
			must(t, os.Remove(dir)) // nothing else is left
		}
	}
}

// A link at a name that the user did not choose is replaced, whoever owns it and its folder; a file keeps mode and owner.
func TestReplace(t *testing.T) {
	testutil.Root(t)
	for _, owner := range []int{0, alice, mallory} {
		dir := folder(t, 0o755, alice)
		victim, name := filepath.Join(t.TempDir(), "victim"), filepath.Join(dir, "unthunk.prom")
		must(t, os.WriteFile(victim, []byte("secret"), 0o600), os.Symlink(victim, name), os.Lchown(name, owner, owner))
		must(t, Replace(name, []byte("new")))
		holds(t, victim, "secret", 0o600, 0)
		must(t, os.Chmod(name, 0o640), os.Chown(name, alice, alice), Replace(name, []byte("newer")))
		holds(t, name, "newer", 0o640, alice)
		if err := Replace(dir, nil); err == nil || !strings.Contains(err.Error(), "it is a directory") {
			t.Error(err)
		}
	}
}

// A caller who may not give files away owns what it writes, and a group that it is not
// in gets no rights.
func TestOwnerWithoutRights(t *testing.T) {
	testutil.Root(t)
	dir := folder(t, 0o777, 0)
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600), os.Chmod(file, 0o664), os.Chown(file, 0, alice))
	err := testutil.Capable(t, func() error { return Write(file, []byte("new")) })
	must(t, err)
	holds(t, file, "new", 0o604, 0)
}

// A new capture is for its owner alone, another file for whom the umask says.
func TestMode(t *testing.T) {
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	dir := t.TempDir()
	uid := uint32(os.Getuid())
	must(t, ways["Write"](filepath.Join(dir, "record"), "r"), ways["Stream"](filepath.Join(dir, "capture"), "c"))
	holds(t, filepath.Join(dir, "record"), "r", 0o644, uid)
	holds(t, filepath.Join(dir, "capture"), "c", 0o600, uid)
}

func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	pipe, loop := filepath.Join(dir, "pipe"), filepath.Join(dir, "loop")
	must(t, unix.Mkfifo(pipe, 0o600), os.Symlink("loop", loop), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	for path, want := range map[string]string{
		"":                                   "no file name",
		".":                                  "it is a directory",
		"/":                                  "it is a directory",
		dir:                                  "it is a directory",
		dir + "/":                            "it is a directory",
		dir + "/file/":                       "it is not a file name",
		dir + "/new/":                        "it is not a file name",
		dir + "/file/x":                      "not a directory",
		dir + "/no/x":                        "no such file or directory",
		loop:                                 "too many levels of symbolic links",
		dir + "/" + strings.Repeat("x", 300): "file name too long",
		"/dev/null":                          "regular file",
	} {
		for name, write := range ways {
			if err := write(path, "x"); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %q: %v, want %q", name, path, err, want)
			}
		}
	}
	for _, path := range []string{pipe, "/dev/stdout"} {
		if err := ways["Write"](path, "x"); err == nil || !strings.Contains(err.Error(), "it is not a regular file") {
			t.Errorf("Write %s: %v", path, err)
		}
	}
	linked := filepath.Join(dir, "linked")
	must(t, os.WriteFile(linked, []byte("old"), 0o600), os.Link(linked, linked+"2"))
	if _, err := Stream(linked); err == nil || !strings.Contains(err.Error(), "it has other names") {
		t.Errorf("Stream to a file of two names: %v", err)
	}
	holds(t, linked+"2", "old", 0o600, uint32(os.Geteuid()))
	if _, err := Stream(pipe); err == nil || !strings.Contains(err.Error(), "no process reads this pipe") {
		t.Errorf("Stream to a pipe without a reader: %v", err)
	}
}

// A stream may be a pipe, by name or as a descriptor.
func TestStreamPipe(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	must(t, ways["Stream"](fmt.Sprintf("/dev/fd/%d", w.Fd()), "through"), w.Close())
	b := make([]byte, 16)
	if n, err := r.Read(b); err != nil || string(b[:n]) != "through" {
		t.Errorf("read %q, %v", b[:n], err)
	}
}

// A file that has taken the name of the one that was looked at is not emptied.
func TestStreamExchanged(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "capture"), filepath.Join(dir, "other")
	must(t, os.WriteFile(path, []byte("old"), 0o600), os.WriteFile(other, []byte("secret"), 0o600))
	was, err := stream(path)
	if err != nil {
		t.Fatal(err)
	}
	defer was.close()
	must(t, os.Rename(other, path))
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := was.empty(fd); err == nil || !strings.Contains(err.Error(), "another process changed it") {
		t.Error(err)
	}
	holds(t, path, "secret", 0o600, uint32(os.Geteuid()))
}

// Folders are made where a path leads, and none behind a link that another user put into a
// folder where everybody can write.
func TestMkdirAll(t *testing.T) {
	testutil.Root(t)
	dir, victim := folder(t, os.ModeSticky|0o777, 0), t.TempDir()
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(victim, link), os.Lchown(link, mallory, mallory))
	for _, path := range []string{link + "/sub", link, link + "/sub/sub"} {
		if err := MkdirAll(path); err == nil || !strings.Contains(err.Error(), "is not followed") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if made, err := os.ReadDir(victim); err != nil || len(made) > 0 {
		t.Errorf("%v is behind the link, %v", made, err)
	}
	own := filepath.Join(dir, "own")
	must(t, os.Symlink(victim, own), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	for _, path := range []string{dir, dir + "/a/b/", dir + "/a/b", dir + "/a/../c", own + "/d/e", "/"} {
		if err := MkdirAll(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	for _, path := range []string{"", dir + "/file", dir + "/file/x"} {
		if err := MkdirAll(path); err == nil {
			t.Errorf("%q was made", path)
		}
	}
}
