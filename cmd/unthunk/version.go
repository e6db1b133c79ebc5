package main

import (
	"debug/elf"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/report"
)

// buildFacts are how this unthunk was built. Facts that the build did not record are
// null.
type buildFacts struct {
	Version *string `json:"version"`
	// Revision is the commit, Time its own.
	Revision *string `json:"revision"`
	Time     *string `json:"time"`
	// Modified is set when files were not as in the commit.
	Modified *bool `json:"modified"`
	// Build is what tells this binary from others: the content part of Go's build ID.
	Build  *string `json:"build"`
	Go     string  `json:"go"`
	Target string  `json:"target"`
}

func newVersion(s std) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version and how it was built",
		Long: `Print the version and how it was built: the commit, whether files were changed since,
Go and the target.`,
		Example: `  unthunk version
  unthunk version --json`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			f := readBuild(debug.ReadBuildInfo())
			if asJSON {
				return report.JSON(s.out, f)
			}
			return f.write(s.out)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document and nothing else")
	return cmd
}

// addVersionFlag makes root print the version when it is asked for by a flag.
func addVersionFlag(s std, root *cobra.Command) {
	asked := root.Flags().Bool("version", false, "print the version and how it was built")
	run := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *asked {
			return readBuild(debug.ReadBuildInfo()).write(s.out)
		}
		return run(cmd, args)
	}
}

func readBuild(info *debug.BuildInfo, ok bool) buildFacts {
	f := buildFacts{Build: buildID(), Go: runtime.Version(), Target: runtime.GOOS + "/" + runtime.GOARCH}
	if !ok {
		return f
	}
	f.Version = &info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			f.Revision = &s.Value
		case "vcs.time":
			f.Time = &s.Value
		case "vcs.modified":
			modified := s.Value == "true"
			f.Modified = &modified
		}
	}
	return f
}

// write is for people; the first line is what records hold as their version.
func (f buildFacts) write(w io.Writer) error {
	unseen := func(s *string) string {
		if s == nil || *s == "" {
			return "not recorded"
		}
		return *s
	}
	modified := "not recorded"
	if f.Modified != nil {
		modified = map[bool]string{true: "yes: files differ from the commit", false: "no"}[*f.Modified]
	}
	_, err := fmt.Fprintf(w, "unthunk %s %s %s\nversion   %s\ncommit    %s\nof        %s\nmodified  %s\nbuild     %s\n",
		buildVersion(), f.Go, f.Target, unseen(f.Version), unseen(f.Revision), unseen(f.Time), modified, unseen(f.Build))
	if err != nil {
		return fmt.Errorf("write version: %w", err)
	}
	return nil
}

// buildVersion is the commit; what the module is called when the build recorded none; and
// of a build that recorded neither what tells its binary from others.
func buildVersion() string {
	const unnamed = "(devel)" // how Go calls a module built in its own folder
	info, ok := debug.ReadBuildInfo()
	f := readBuild(info, ok)
	switch {
	case f.Revision != nil:
		return *f.Revision
	case f.Version != nil && *f.Version != "" && *f.Version != unnamed:
		return *f.Version
	case f.Build != nil:
		return "build " + *f.Build
	}
	return "unknown"
}

// buildID is the content part of the build ID that Go's linker wrote into this binary, nil
// when there is none to read. It differs when a byte of the binary does.
func buildID() *string {
	file, err := elf.Open("/proc/self/exe")
	if err != nil {
		return nil
	}
	defer file.Close()
	section := file.Section(".note.go.buildid")
	if section == nil {
		return nil
	}
	note, err := section.Data()
	if err != nil || len(note) < noteHeader {
		return nil
	}
	id := string(note[noteHeader:])
	if n := int(file.ByteOrder.Uint32(note[4:])); n < len(id) {
		id = id[:n]
	}
	id = id[strings.LastIndexByte(id, '/')+1:]
	if id == "" {
		return nil
	}
	return &id
}

// noteHeader is what stands before the ID: three lengths, and the name "Go" with two zero
// bytes (cmd/internal/buildid).
const noteHeader = 16

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}
