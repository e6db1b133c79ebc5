package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// guideLine is a command of a page that a reader follows.
type guideLine struct {
	number  int
	command string
}

// guideLines are the commands of a part of a page, in their order: those of indented lines and
// behind the prompts of its outputs. The part begins with a line that has the text first, and ends before the next line that
// has the text end; empty texts stand for the whole page.
func guideLines(t *testing.T, page, first, end string, least int) []guideLine {
	t.Helper()
	command := regexp.MustCompile(`^(?:    |\$ )(?:sudo )?(\S.*)$`)
	var lines []guideLine
	fenced, within := false, false
	for i, line := range strings.Split(readFile(t, page), "\n") {
		switch {
		case !within:
			within = strings.Contains(line, first)
		case end != "" && strings.Contains(line, end):
			within = false
		}
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		m := command.FindStringSubmatch(line)
		if within && m != nil && fenced == strings.HasPrefix(line, "$") {
			lines = append(lines, guideLine{i + 1, m[1]})
		}
	}
	if len(lines) < least {
		t.Fatalf("%d commands: the test reads nothing", len(lines))
	}
	return lines
}

// Each command of docs/getting-started.md runs as it is written, in order, from the clone
// on; those that measure are cut short by flags that the guide names. eth0 and eth1 are
// veths with traffic. What needs the network, or QEMU, is skipped without it.
func TestGettingStarted(t *testing.T) {
	testutil.Root(t)
	testutil.Slow(t)
	for _, tool := range []string{"git", "go", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			testutil.Missing(t, tool)
		}
	}
	dir := t.TempDir()
	guide := guideShell{dir: dir, files: filepath.Join(dir, "unthunk"), clone: cloneable(t)}
	text := readFile(t, "../../docs/getting-started.md")
	for _, flag := range []string{"--quick", "--duration"} {
		if !strings.Contains(text, flag) {
			t.Errorf("the guide does not name %s, by which this test is shorter", flag)
		}
	}
	real := veth.Namespace(t)
	source, _ := veth.Pair(t, real, "peer0", "eth0")
	_, sink := veth.Pair(t, real, "eth1", "peer1")
	if err := sink.EnableGRO(); err != nil {
		t.Fatal(err)
	}
	stop := func() {}
	for _, line := range guideLines(t, "../../docs/getting-started.md", "", "", 20) {
		if strings.Contains(line.command, "eth0") && guide.namespace == nil { // the first of the last part
			guide.namespace = real
			stop = flood.Start(t, real, source.Index)
		}
		t.Run(strconv.Itoa(line.number), func(t *testing.T) { guide.run(t, line.command) })
		if guide.failed {
			break
		}
	}
	stop()
}

// guideShell runs commands as a shell does that keeps its folder and its environment.
type guideShell struct {
	// dir is the folder in which the guide begins, files the one that commands save files in, clone what the address of
	// the repository stands for.
	dir, files, clone string
	// namespace is where the commands run; nil for that of the test.
	namespace *netlab.Namespace
	// failed is set when a command before this one failed that others need.
	failed bool
}

// short are the flags that cut a verb, and the exit codes that answer its question: compare
// of two short runs may find anything.
var short = map[string]struct {
	flags string
	codes []int
}{
	"run":     {" --quick", nil},
	"bench":   {" --quick --duration 3s", nil},
	"profile": {" --quick --duration 4s", nil},
	"tax":     {" --quick", nil},
	"compare": {"", []int{exitRegression}},

	"fleet compare": {"", []int{exitRegression}},

	"prog cost":   {" --quick --duration 4s", nil},
	"prog diff":   {" --quick --duration 4s", nil},
	"prog record": {" --packets 1000", nil},
}

// shortened is a command line that takes seconds.
func shortened(command string) (line string, codes []int) {
	words := strings.Fields(command)
	if words[0] != "unthunk" {
		return command, []int{exitDone}
	}
	verb := "run"
	if len(words) > 1 && !strings.HasPrefix(words[1], "-") {
		verb = words[1]
	}
	if verb == "prog" || verb == "fleet" {
		verb += " " + words[2]
	}
	before, after, redirected := strings.Cut(command, " > ")
	before += short[verb].flags
	if redirected {
		before += " > " + after
	}
	return before, append([]int{exitDone}, short[verb].codes...)
}

func (g *guideShell) run(t *testing.T, command string) {
	line, codes := shortened(command)
	state := filepath.Join(g.dir, "state")
	script := fmt.Sprintf(`cd %[1]q
[ ! -e %[2]q ] || . %[2]q
%[3]s
code=$?
{ echo "cd $(printf %%q "$PWD")"; echo "export PATH=$(printf %%q "$PATH")"; } >%[2]q
exit $code`, g.dir, state, line)
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=url."+g.clone+".insteadOf",
		"GIT_CONFIG_VALUE_0=https://github.com/unthunk/unthunk", "GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*")
	var out []byte
	var err error
	if g.namespace == nil {
		out, err = cmd.CombinedOutput()
	} else { // a process inherits the namespace of the thread that starts it
		g.namespace.Do(func() error { out, err = cmd.CombinedOutput(); return nil })
	}
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	code := cmd.ProcessState.ExitCode()
	skipMissing(t, code, string(out))
	if code == exitFailed && strings.Contains(string(out), "unthunk: no answer: ") { // of profile, in four seconds on a busy machine
		t.Logf("%s:\n%s", line, out)
		return
	}
	if !slices.Contains(codes, code) {
		g.failed = !strings.HasPrefix(command, "unthunk")
		t.Errorf("%s: exit code %d:\n%s", line, code, out)
	}
	// The files that later commands of the guide read.
	_, name, saves := strings.Cut(command, "--save ")
	if name, _, _ = strings.Cut(name, " "); saves && !strings.Contains(name, "$") {
		if _, err := os.Stat(filepath.Join(g.files, name)); err != nil {
			t.Error(err)
		}
	}
}

// cloneable is the address of a repository with the files of this one as they are now.
func cloneable(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command("git", "-c", "safe.directory=*", "-C", root, "ls-files", "-z", "-co", "--exclude-standard").Output()
	if err != nil {
		testutil.Missing(t, "the repository's history")
	}
	dir := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue // deleted, and not yet committed
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{
		"init -q", "add -A", "-c user.name=test -c user.email=test@example.org -c commit.gpgsign=false commit -q -m all",
	} {
		if out, err := exec.Command("git", append([]string{"-C", dir}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args, err, out)
		}
	}
	return "file://" + dir
}
