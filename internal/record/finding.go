package record

import (
	"errors"
	"fmt"
	"slices"

	"github.com/unthunk/unthunk/internal/host"
)

// Check is a record of check: a row is a finding about the machine.
type Check = Document[host.Finding]

// Findings are findings as a record may have them: they have names of devices and programs, and what the kernel says of itself.
func Findings(found []host.Finding) []host.Finding {
	out := slices.Clone(found)
	for i := range out {
		f := &out[i]
		f.Name, f.Found, f.Means, f.Do = Name(f.Name), Sentence(f.Found), Sentence(f.Means), Sentence(f.Do)
	}
	return out
}

// checkFindings checks a record of check.
func checkFindings(doc *Check) error {
	if n := len(doc.Rows); n > MaxRows {
		return errTooMany(n)
	}
	for i := range doc.Rows {
		if err := checkFinding(&doc.Rows[i]); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	return nil
}

func checkFinding(f *host.Finding) error {
	if f.Name == "" || !plain(f.Name) {
		return fmt.Errorf("impossible name %.60q", f.Name)
	}
	levels := []host.Level{host.LevelOK, host.LevelNote, host.LevelWarn, host.LevelUnknown}
	if !slices.Contains(levels, f.Level) {
		return fmt.Errorf("impossible level %.60q", f.Level)
	}
	return checkTexts([]string{f.Found, f.Means, f.Do})
}

// FindingComparison is what two records of check differ in: what changed on a machine, or
// how two machines differ.
type FindingComparison struct {
	Document[FindingChange]
	Compared
	// Checked is how many findings are in both records, Same how many of them are alike.
	Checked int     `json:"checked"`
	Same    int     `json:"same"`
	Causes  []Cause `json:"causes"`
}

// FindingChange is a finding that two records differ in.
type FindingChange struct {
	Name string `json:"name"`
	// Old and New are the findings, null where there is none.
	Old *host.Finding `json:"old"`
	New *host.Finding `json:"new"`
}

// Worse tells whether the finding is a warning in the new record only.
func (r *FindingChange) Worse() bool {
	return r.New != nil && r.New.Level == host.LevelWarn && (r.Old == nil || r.Old.Level != host.LevelWarn)
}

// Regressed implements [Changes]: a finding is no time.
func (c *FindingComparison) Regressed() bool { return false }

// Nothing implements [Changes]: the records have no finding in common.
func (c *FindingComparison) Nothing() string {
	if c.Checked > 0 {
		return ""
	}
	return "the two records have no finding in common"
}

func (r *FindingChange) check() error {
	if r.Old == nil && r.New == nil {
		return errors.New("neither an old finding nor a new one")
	}
	for _, f := range []*host.Finding{r.Old, r.New} {
		if f != nil {
			if err := checkFinding(f); err != nil {
				return err
			}
		}
	}
	return checkTexts([]string{r.Name})
}
