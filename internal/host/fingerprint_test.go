package host

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFingerprintJSON(t *testing.T) {
	seen := Fingerprint{CPU: "Some CPU", CPUs: 2, Kernel: "6.1", Mitigations: map[string]string{"spectre-v2": "Vulnerable"}}
	b, err := json.Marshal(seen)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"cpu":"Some CPU"`, `"cpus":2`, `"microcode":null`, `"indirect-thunk":null`, `"spectre-v2":"Vulnerable"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	var back Fingerprint
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(seen, back); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	b, err = json.Marshal(Fingerprint{})
	if err != nil || strings.Contains(string(b), `""`) || strings.Contains(string(b), ":0") {
		t.Errorf("nothing seen: %s, %v", b, err)
	}
}
