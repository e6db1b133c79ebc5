package gate

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// The workflow of docs/gate.md, run step by step on a repository with a pull request: one that adds an instruction to the
// program is beyond, one that changes a comment is not.
func TestWorkflow(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	kernel(t)
	for _, tool := range []string{"git", "make", "clang-14", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			testutil.Missing(t, tool)
		}
	}
	dir := t.TempDir()
	if err := guest.Build(t.Context(), testutil.Package("cmd/unthunk"), filepath.Join(dir, "unthunk")); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "owner", "lb")
	repository(t, root)
	steps := workflowSteps(t)
	for _, test := range []struct {
		request string
		beyond  bool
	}{{"comment", false}, {"slower", true}} {
		t.Run(test.request, func(t *testing.T) {
			work, summary := t.TempDir(), filepath.Join(t.TempDir(), "summary.md")
			env := append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "GITHUB_SERVER_URL=file://"+dir, "GITHUB_REPOSITORY=owner/lb",
				"GITHUB_REF="+test.request, "GITHUB_BASE_REF=main", "GITHUB_STEP_SUMMARY="+summary,
				"GATE="+variable(t, "GATE"), "KERNEL="+variable(t, "KERNEL"))
			for i, step := range steps {
				cmd := exec.Command("bash", "-e", "-o", "pipefail", "-c", step)
				cmd.Dir, cmd.Env = work, env
				out, err := cmd.CombinedOutput()
				if i < len(steps)-1 && err != nil || i == len(steps)-1 && (err != nil) != test.beyond {
					t.Fatalf("%s: %v\n%s", step, err, out)
				}
				if test.beyond && err != nil && cmd.ProcessState.ExitCode() != 1 {
					t.Errorf("exit code %d: %s", cmd.ProcessState.ExitCode(), out)
				}
			}
			text, err := os.ReadFile(summary)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), "instructions") || strings.Contains(string(text), "beyond") != test.beyond {
				t.Errorf("summary:\n%s", text)
			}
		})
	}
}

// workflow is that of the page.
func workflow(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/gate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## A program in a pull request\n")
	_, block, _ := strings.Cut(section, "```yaml\n")
	block, _, _ = strings.Cut(block, "```")
	return block
}

// variable is one of the workflow's environment.
func variable(t *testing.T, name string) string {
	t.Helper()
	m := regexp.MustCompile(`[{ ]` + name + `: ("[^"]*"|.*?)(?:, [A-Z]+:|}\n)`).FindStringSubmatch(workflow(t))
	if m == nil {
		t.Fatalf("the workflow has no %s", name)
	}
	return strings.Trim(m[1], `"`)
}

// workflowSteps are the commands of the workflow, without those that install what a test has.
func workflowSteps(t *testing.T) (steps []string) {
	t.Helper()
	block := workflow(t)
	for _, m := range regexp.MustCompile(`(?m)^ +- run: (.+)$`).FindAllStringSubmatch(block, -1) {
		if !strings.HasPrefix(m[1], "apt-get") {
			steps = append(steps, m[1])
		}
	}
	if len(steps) < 4 {
		t.Fatalf("%d steps: the test reads nothing of\n%s", len(steps), block)
	}
	return steps
}

// repository makes one with a program on main, and two pull requests as branches.
func repository(t *testing.T, dir string) {
	t.Helper()
	headers, err := filepath.Abs("../internal/bpf/headers")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../internal/lab/testdata/one.bpf.c")
	if err != nil {
		t.Fatal(err)
	}
	commit := func(branch, change string) {
		for name, text := range map[string]string{
			"Makefile": "lb.o: lb.c\n\tclang-14 -O2 -g -target bpf -I" + headers + " -c $< -o $@\n",
			"lb.c":     change + strings.ReplaceAll(string(source), "int one(", "int balancer("),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, args := range [][]string{{"checkout", "-q", "-B", branch}, {"add", "-A"},
			{"-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", branch}} {
			git(t, dir, args...)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "init", "-q", "-b", "main")
	commit("main", "")
	commit("slower", "#define MORE\n")
	git(t, dir, "checkout", "-q", "main")
	commit("comment", "/* a comment */\n")
	git(t, dir, "checkout", "-q", "main")
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
}
