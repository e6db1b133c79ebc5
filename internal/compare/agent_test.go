package compare

import (
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// Two runs of agent are compared by what both measured: prices and the redirect.
func TestAgents(t *testing.T) {
	t.Parallel()
	c, err := Records(record.NewSaved(recordtest.Agent("a", 1, 10)), record.NewSaved(recordtest.Agent("b", 2, 14)), Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	verdicts := make(map[string]string)
	for _, row := range c.Rows {
		verdicts[row.Name] = string(row.Verdict)
	}
	if verdicts["callback/loop"] != "slower" || verdicts["redirect-map/bulk=16"] == "" {
		t.Errorf("verdicts %v", verdicts)
	}
}
