package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

var errNoOutput = errors.New("nobody sees the output: stdout is closed, or is /dev/null opened for reading too")

// checkOutput refuses a verb whose only result is its output, when standard output was
// closed (>&-): else it would measure, write to nowhere and say that all is well. Of
// compare, gate, check and version the exit code says something; forward and fleet ingest do something.
func checkOutput(cmd *cobra.Command, stdout io.Writer) error {
	switch verbOf(cmd) {
	case "gate":
		if base := cmd.Flags().Lookup("base"); base != nil && base.Changed {
			return nil
		}
	case "compare", "fleet compare", "fleet ingest", "check", "forward", "man", "version", "completion":
		return nil
	}
	if file, ok := stdout.(*os.File); !ok || !replaced(file) {
		return nil
	}
	for _, flag := range filesOut {
		if f := cmd.Flags().Lookup(flag); f != nil && f.Changed {
			return nil
		}
	}
	return errNoOutput
}

// filesOut are the flags that name a file to write.
var filesOut = []string{"save", "output", "pprof", "folded", "svg", "pcap", "records", "textfile", "post", "listen"}

// replaced says whether the runtime of Go has put /dev/null in the place of a standard
// stream that was closed. It opens it for reading and writing, and anew for each stream: a
// shell opens it for writing only, and a daemon has one for all streams. Python's
// subprocess.DEVNULL for stdout alone looks the same.
func replaced(stream *os.File) bool {
	fd := stream.Fd()
	var st unix.Stat_t
	if err := unix.Fstat(int(fd), &st); err != nil {
		return true
	}
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	null := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
	if err != nil || !null || flags&unix.O_ACCMODE != unix.O_RDWR {
		return false
	}
	for other := range uintptr(3) {
		if other == fd {
			continue
		}
		if same, err := sameOpenFile(fd, other); same || err != nil {
			return false
		}
	}
	return true
}

// sameOpenFile says whether two descriptors are of one open file, by kcmp(2), which a
// container's seccomp filter may refuse.
func sameOpenFile(a, b uintptr) (bool, error) {
	const file = 0 // KCMP_FILE
	pid := uintptr(os.Getpid())
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, file, a, b, 0)
	if errno != 0 {
		return false, errno
	}
	return order == 0, nil
}

// outputFlags say where a record goes.
type outputFlags struct {
	json bool
	save string
}

func (o *outputFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON document and nothing else")
	cmd.Flags().StringVar(&o.save, "save", "", "also save the record in `FILE`")
}

// check finds out before a run whether its record can be saved after it.
func (o outputFlags) check() error {
	if o.save == "" {
		return nil
	}
	return outfile.Check(o.save)
}

// outFile is a file that a flag asks for.
type outFile struct{ flag, path string }

// checkFiles refuses files to write that are read as well, or that two flags ask for. Of
// an input that is a folder the files *.json in it are read. Empty paths do not count.
func checkFiles(inputs []string, outputs ...outFile) error {
	outputs = slices.DeleteFunc(outputs, func(o outFile) bool { return o.path == "" })
	for i, out := range outputs {
		for _, in := range inputs {
			if sameFile(in, out.path) || inFolder(in, out.path) {
				return usagef("--%s %s would overwrite a file that is read: choose another name", out.flag, out.path)
			}
		}
		for _, other := range outputs[:i] {
			if sameFile(other.path, out.path) {
				return usagef("--%s and --%s write to one file, %s: choose two names", other.flag, out.flag, out.path)
			}
		}
	}
	return nil
}

// sameFile tells whether two paths name one file, which need not exist.
func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	if errA == nil && errB == nil {
		return os.SameFile(infoA, infoB)
	}
	absA, errA := filepath.Abs(a)
	absB, errB := filepath.Abs(b)
	return errA == nil && errB == nil && absA == absB
}

// inFolder tells whether a folder has a record of that path.
func inFolder(folder, path string) bool {
	info, err := os.Stat(folder)
	if err != nil || !info.IsDir() || filepath.Ext(path) != ".json" {
		return false
	}
	_, err = os.Stat(path)
	return err == nil && sameFile(folder, filepath.Dir(path))
}

// publish writes a record to where it was asked for; text is how people see
// it. It is saved first, as standard output may wait for its reader for ever; what cannot
// be saved is shown all the same.
func (o outputFlags) publish(s std, doc any, text func() error) error {
	if o.json {
		text = func() error { return report.JSON(s.out, doc) }
	}
	var err error
	if o.save != "" {
		err = record.Save(o.save, doc)
	}
	return errors.Join(err, text())
}

// publishRead is publish of what was made of files that others may have made: text may be
// long, and take long. It ends with ctx, with nothing written.
func (o outputFlags) publishRead(ctx context.Context, s std, doc any, text func(s std) error) error {
	if o.json {
		text = func(s std) error { return report.JSON(s.out, doc) }
	}
	var saved []byte
	var errSave error
	shown, err := reading(ctx, func() (_ *memory.Buffer, err error) {
		if o.save != "" {
			saved, errSave = record.Encode(doc)
		}
		return held(ctx, s, text)
	})
	if err != nil {
		return err
	}
	if err = errSave; o.save != "" && err == nil {
		err = outfile.Write(o.save, saved)
	}
	_, errShow := shown.WriteTo(s.out)
	return errors.Join(err, errShow)
}

// warner writes warnings, of any goroutine where w is an output.
func warner(w io.Writer) func(string) {
	return func(text string) { fmt.Fprintf(w, "warning: %s\n", line(text)) } // it may have the name of a device
}
