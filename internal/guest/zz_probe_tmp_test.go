package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestZZProbe(t *testing.T) {
	for _, series := range []string{"6.1", "6.12"} {
		cache, _ := CacheDir()
		k, err := Fetch(t.Context(), cache, series)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		m := &Machine{Kernel: k, Init: filepath.Join(dir, "init"), Append: os.Getenv("ZZ_APPEND"), Modules: []string{"veth"}, Files: map[string]string{"/probe": filepath.Join(dir, "probe")}}
		if err := Build(t.Context(), "unthunk/cmd/unthunk", m.Init); err != nil {
			t.Fatal(err)
		}
		if err := Build(t.Context(), "unthunk/internal/zz_probe_tmp", m.Files["/probe"]); err != nil {
			t.Fatal(err)
		}
		r, err := m.Run(t.Context(), Command{Args: append([]string{"/probe"}, strings.Fields(os.Getenv("ZZ_ARGS"))...)})
		if err != nil {
			t.Fatal(err, r.Console)
		}
		for _, x := range r.Results {
			t.Logf("%s %v exit %d\n%s%s", series, x.Args, x.Exit, x.Stdout, x.Stderr)
		}
	}
}
