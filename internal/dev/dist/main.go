// Command dist makes what a commit is handed out as: static binaries, packages for
// Debian, RPM and Alpine, an image for containers, man pages and completions, a list of
// what is in each binary (CycloneDX), and the SHA-256 of all files. It builds a clone of
// the commit, so that what is not committed is in none of them, and two runs with one Go
// write the same bytes.
//
//	go -C internal/dev/dist run . -o FOLDER [-commit REVISION]
//
// It is a module of its own: what makes packages is no dependency of who imports unthunk.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("dist", flag.ContinueOnError)
	flags.SetOutput(stderr)
	to := flags.String("o", "", "folder to write, which replaces one that dist wrote before")
	revision := flags.String("commit", "HEAD", "commit to build")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || *to == "" {
		fmt.Fprintln(stderr, "dist: name one folder by -o, and nothing else")
		return 2
	}
	if err := write(ctx, *to, *revision, stdout); err != nil {
		fmt.Fprintln(stderr, "dist:", err)
		return 1
	}
	return 0
}

// write makes the files in a folder beside the one that is asked for, and renames that
// when they are complete.
func write(ctx context.Context, to, revision string, stdout io.Writer) (err error) {
	to, err = filepath.Abs(to)
	if err != nil {
		return fmt.Errorf("find folder: %w", err)
	}
	if err := replaceable(to); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(to), ".dist-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	src, err := checkOut(ctx, revision, filepath.Join(work, "src"))
	if err != nil {
		return err
	}
	out := filepath.Join(work, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := makeAll(ctx, src, filepath.Join(work, "stage"), out); err != nil {
		return err
	}
	if err := writeSums(out); err != nil {
		return err
	}
	if err := errors.Join(ctx.Err(), replaceable(to)); err != nil { // that took minutes
		return err
	}
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("remove what was made before: %w", err)
	}
	if err := os.Rename(out, to); err != nil {
		return fmt.Errorf("rename folder: %w", err)
	}
	return list(stdout, src, to)
}

// makeAll writes all files of a commit but their sums.
func makeAll(ctx context.Context, src source, stage, out string) error {
	var builds []build
	for _, arch := range architectures {
		b, err := src.build(ctx, arch, out)
		if err != nil {
			return err
		}
		builds = append(builds, b)
	}
	shared, err := src.share(ctx, builds, stage)
	if err != nil {
		return err
	}
	v, err := parseVersion(builds[0].info.Main.Version)
	if err != nil {
		return err
	}
	for _, b := range builds {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writePackages(b, shared, v, src.at, out); err != nil {
			return err
		}
		if err := writeBOM(b, src.at, b.file+".cdx.json"); err != nil {
			return err
		}
	}
	if err := writeArchive(shared, v, src.at, out); err != nil {
		return err
	}
	if err := writeManifests(src, v, out); err != nil {
		return err
	}
	return writeImage(builds, v, src, out)
}

// maxSums is the most that the file of sums has, in bytes.
const maxSums = 1 << 20

// replaceable says why a folder must not be replaced: it holds something that dist did not write. dist writes files whose names
// begin with unthunk, and the file of sums, which lists them.
func replaceable(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0:
		return nil
	case err != nil:
		return fmt.Errorf("read folder: %w", err)
	}
	listed, err := readSums(filepath.Join(dir, sumsName))
	if err != nil {
		return fmt.Errorf("%s is not empty, and dist did not write it: %w", dir, err)
	}
	for _, e := range entries {
		own := e.Name() == sumsName || listed[e.Name()] && strings.HasPrefix(e.Name(), "unthunk")
		if !own || !e.Type().IsRegular() {
			return fmt.Errorf("%s has %q, which dist did not write", dir, e.Name())
		}
	}
	return nil
}

// readSums reads the names that a file of sums lists.
func readSums(file string) (map[string]bool, error) {
	info, err := os.Lstat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSums {
		return nil, fmt.Errorf("%s is no file of sums", sumsName)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	listed := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		if _, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok {
			listed[name] = true
		}
	}
	return listed, nil
}

// list prints what was made.
func list(w io.Writer, src source, dir string) error {
	fmt.Fprintf(w, "commit %s, of %s, in %s\n", src.commit, src.at.Format("2006-01-02 15:04:05 MST"), dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list files: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("list files: %w", err)
		}
		fmt.Fprintf(w, "%6.1f MB  %s\n", float64(info.Size())/1e6, e.Name())
	}
	return nil
}
