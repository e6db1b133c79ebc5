package page

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func readCSV(t testing.TB, b []byte) [][]string {
	t.Helper()
	lines, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestCSV(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := CSV(t.Context(), &b, Source{Records: everyRecord(t), History: reporttest.Trends(t)}); err != nil {
		t.Fatal(err)
	}
	lines := readCSV(t, b.Bytes())
	found := make(map[string]bool)
	for _, line := range lines {
		found[line[1]+" "+line[6]+" "+line[7]] = true
	}
	for _, want := range []string{
		"kind row measure", "run redirect-map/bulk=64 mpps", "run control price", "run stage/receive ns",
		"profile packet ns", "profile site/bq_xmit_all+0xa3 landing",
		"xray __napi_poll/napi_struct.poll offset", "lab debian:6.12-cloud/spectre_v2=off/bulk=16 instructions",
		"compare redirect-map/bulk=64 change",
		"agent redirect-map/bulk=16 hop", "agent callback/loop price", "agent path/veth per-packet", "agent cost cpu-seconds",
		"prog-list id:241 jited", "prog-list packet of eth1 cost",
		"history redirect-map/bulk=64 ns", "history redirect-map/bulk=64 change", "bench redirect-xsk/bulk=1 mpps",
	} {
		if !found[want] {
			t.Errorf("no line %q", want)
		}
	}
	if strings.Contains(b.String(), "NaN") {
		t.Error("an unknown number is not empty")
	}
}
