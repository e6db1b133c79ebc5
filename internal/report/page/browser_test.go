package page

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// browser runs Chromium on a page and returns the page as it is once its scripts ran,
// and what was written to its console.
func browser(t *testing.T, page string) (dom, console string) {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		testutil.Missing(t, "chromium")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
		"--virtual-time-budget=3000", "--enable-logging=stderr", "--window-size=1500,1000", "--dump-dom",
		"file://"+page)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, errs.String())
	}
	for line := range strings.SplitSeq(errs.String(), "\n") {
		if strings.Contains(line, "CONSOLE") {
			console += line + "\n"
		}
	}
	return out.String(), console
}

// probe tells the frame around a page how wide the page is, and what sticks out.
const probe = `<script>
addEventListener("load", function () {
  var width = document.documentElement.clientWidth, out = [];
  document.querySelectorAll("body *").forEach(function (e) {
    var r = e.getBoundingClientRect();
    if (e.closest(".scroll") && !e.classList.contains("scroll")) return;
    if (r.width && (r.right > width + 0.5 || r.left < -0.5))
      out.push(e.tagName + " " + Math.round(r.left) + ".." + Math.round(r.right));
  });
  parent.postMessage(document.documentElement.scrollWidth + "/" + width + " " + out.join(", "), "*");
});
</script></body>`

// Nothing of a page is wider than the window, on a phone or on a desk, and the console
// stays empty.
func TestBrowser(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole := string(pageOf(t, Source{Records: hostile(t, "a-long-name-"+strings.Repeat("x", 60)),
		History: reporttest.Trends(t)}))
	plain := string(pageOf(t, Source{Records: everyRecord(t), History: reporttest.Trends(t), Version: "v1"}))
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, console := browser(t, write("page.html", plain)); console != "" {
		t.Errorf("console: %s", console)
	}
	policy := regexp.MustCompile(`<meta http-equiv="Content-Security-Policy"[^>]*>`)
	var outer strings.Builder
	outer.WriteString(`<!doctype html><body><script>
addEventListener("message", function (e) {
  var p = document.createElement("p");
  p.textContent = "probed " + e.data;
  document.body.append(p);
});
</script>`)
	frames := 0
	for name, text := range map[string]string{"plain": plain, "long": whole} {
		write(name+".html", strings.Replace(policy.ReplaceAllString(text, ""), "</body>", probe, 1))
		for _, width := range []int{390, 1440} {
			frames++
			fmt.Fprintf(&outer, `<iframe src="%s.html" width="%d" height="800" style="border:0"></iframe>`, name, width)
		}
	}
	dom, console := browser(t, write("outer.html", outer.String()))
	if console != "" {
		t.Errorf("console: %s", console)
	}
	probed := regexp.MustCompile(`<p>probed (\d+)/(\d+) ([^<]*)</p>`).FindAllStringSubmatch(dom, -1)
	if len(probed) != frames {
		t.Fatalf("%d of %d pages said how wide they are", len(probed), frames)
	}
	for _, m := range probed {
		if m[1] != m[2] || m[3] != "" {
			t.Errorf("%s px wide in a window of %s: %s", m[1], m[2], m[3])
		}
	}
}
