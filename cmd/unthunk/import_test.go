package main

import (
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// public are the packages that others import; README lists them.
var public = []string{"branch", "datapath", "feature", "filter", "gate", "ksym", "ktext", "prog", "xsk"}

// goCommand runs the go command in a folder, without the network.
func goCommand(t *testing.T, dir string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		testutil.Missing(t, "the go command")
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=mod", "GOBIN="+dir, "CGO_ENABLED=0", "GOWORK=off")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// Another module can import each public package, and install the command.
func TestModuleOfOthers(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	module := strings.TrimSuffix(testutil.Package(""), "/")
	// With our requirements written down, no go.mod of an older version is looked for.
	other := strings.Replace(string(mod), "module "+module+"\n", "module other\n", 1)
	program := "package main\n\n"
	for _, p := range public {
		program += fmt.Sprintf("import _ %q\n", module+"/"+p)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":  fmt.Sprintf("%s\nrequire %s v0.0.0\n\nreplace %[2]s => %s\n", other, module, root),
		"go.sum":  string(sums),
		"main.go": program + "\nfunc main() {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	goCommand(t, dir, "build", "-o", os.DevNull, ".")
	goCommand(t, dir, "install", module+"/cmd/unthunk")
	if out, err := exec.Command(filepath.Join(dir, "unthunk"), "--help").CombinedOutput(); err != nil {
		t.Errorf("installed command: %v\n%s", err, out)
	}
}

// An importer can name every type that a public package shows: none is unexported, and
// none is of an internal package.
func TestPublicTypes(t *testing.T) {
	exports := make(map[string]string)
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}
	for _, p := range public {
		args = append(args, testutil.Package(p))
	}
	for line := range strings.Lines(goCommand(t, "../..", args...)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		exports[path] = file
	}
	open := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	from := importer.ForCompiler(token.NewFileSet(), "gc", open)
	for _, name := range public {
		p, err := from.Import(testutil.Package(name))
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range p.Scope().Names() {
			if o := p.Scope().Lookup(object); o.Exported() {
				for _, hidden := range hiddenTypes(o) {
					t.Errorf("%s.%s shows %s", name, object, hidden)
				}
			}
		}
	}
}

// hiddenTypes are those that an object shows and an importer cannot name.
func hiddenTypes(o types.Object) (hidden []string) {
	seen := make(map[types.Type]bool)
	var show func(types.Type)
	tuple := func(t *types.Tuple) {
		for v := range t.Variables() {
			show(v.Type())
		}
	}
	show = func(t types.Type) {
		if seen[t] {
			return
		}
		seen[t] = true
		switch t := t.(type) {
		case *types.Named:
			name := t.Obj()
			if name.Pkg() != nil && strings.HasPrefix(name.Pkg().Path(), testutil.Package("")) &&
				(!name.Exported() || strings.Contains(name.Pkg().Path(), "/internal/")) {
				hidden = append(hidden, name.Pkg().Name()+"."+name.Name())
			}
		case *types.Struct:
			for f := range t.Fields() {
				if f.Exported() {
					show(f.Type())
				}
			}
		case *types.Signature:
			tuple(t.Params())
			tuple(t.Results())
		case *types.Interface:
			for m := range t.Methods() {
				if m.Exported() {
					show(m.Type())
				}
			}
		case *types.Map:
			show(t.Key())
			show(t.Elem())
		case interface{ Elem() types.Type }: // pointer, slice, array, channel
			show(t.Elem())
		}
	}
	show(o.Type())
	if name, ok := o.(*types.TypeName); ok {
		show(name.Type().Underlying())
		// Also the methods of what is embedded.
		methods := types.NewMethodSet(types.NewPointer(name.Type()))
		for m := range methods.Methods() {
			if m.Obj().Exported() {
				show(m.Obj().Type())
			}
		}
	}
	return hidden
}
