package page

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestFlame(t *testing.T) {
	t.Parallel()
	p := reporttest.Profile()
	evil := `</text><script>alert(1)</script>"'&]]>` + "\x1b[31m"
	p.Stacks = append(p.Stacks, record.ProfileStack{Frames: []string{evil, evil}, Stage: evil, Samples: 400, Ns: 10})
	var b bytes.Buffer
	if err := Flame(t.Context(), &b, p, evil); err != nil {
		t.Fatal(err)
	}
	scripts := 0
	text := b.String()
	for d := xml.NewDecoder(&b); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "script" {
			scripts++
		}
	}
	if scripts != 1 {
		t.Errorf("%d scripts", scripts)
	}
	for _, want := range []string{"redirect_map [bpf]", "veth_xdp_xmit",
		"8.00 ns a packet, 8.00 of itself, 320 samples, 9.8 % of what is drawn, stage program"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, not := range []string{"too_narrow", "http://", "https://", "\x1b"} {
		if strings.Contains(strings.Replace(text, "http://www.w3.org/2000/svg", "", 1), not) {
			t.Errorf("it has %q", not)
		}
	}
}

// Nothing measured is no reason to fail.
func TestFlameEmpty(t *testing.T) {
	t.Parallel()
	p := &record.Profile{}
	p.Incomplete = true
	var b bytes.Buffer
	if err := Flame(t.Context(), &b, p, "x"); err != nil || strings.Contains(b.String(), "NaN") {
		t.Errorf("%v\n%s", err, b.String())
	}
}
