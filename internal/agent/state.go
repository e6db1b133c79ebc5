package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/unpack"
)

// State is what an agent knows of its runs before.
type State struct {
	// Facts are those of the last run; its zero value is that of a machine that had none.
	Facts Facts `json:"facts"`
	// Run is when the last run began, Change when the last one did that was made as something changed; zero for never.
	Run    time.Time `json:"run"`
	Change time.Time `json:"change"`
	// Unmeasured is how many runs in a row found no numbers, as the machine was busy.
	Unmeasured int `json:"unmeasured,omitempty"`
	// Identity stands for that of the machine where it has none of its own: 32 hexadecimal digits.
	Identity string `json:"identity,omitempty"`
	// Dropped is how many records were given up, as the server was away for too long or refused them, or they could not be read.
	Dropped int `json:"dropped,omitempty"`
}

// Files of a folder of state, and their largest size in bytes.
const (
	stateFile    = "agent.json"
	measuredFile = "measured.json"
	lastFile     = "last.json"
	maxState     = 1 << 20
)

// LoadState reads the state in a folder. Without one it is the zero value; of a damaged one too, and err says what is wrong
// with it: a run made once too often is better than none.
func LoadState(dir string) (State, error) {
	path := filepath.Join(dir, stateFile)
	b, err := unpack.ReadFile(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("read state: %w", err)
	}
	s, err := parseState(b)
	if err != nil {
		return State{}, fmt.Errorf("read state %s: %w", path, err)
	}
	return s, nil
}

// maxPrograms of a state: more devices with XDP no machine has.
const maxStatePrograms = 10_000

func parseState(b []byte) (State, error) {
	if len(b) > maxState {
		return State{}, errors.New("it is too long")
	}
	var s State
	if err := json.Unmarshal(bytes.TrimSpace(b), &s); err != nil {
		return State{}, err
	}
	if len(s.Facts.Programs) > maxStatePrograms || s.Dropped < 0 || s.Unmeasured < 0 {
		return State{}, errors.New("it is not a state of agent")
	}
	return s, nil
}

// Save writes the state into a folder, which is made where it is not there.
func (s State) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return outfile.Replace(filepath.Join(dir, stateFile), append(b, '\n'))
}

// changesApart is the least time from one run that is made for a change to the next: where programs come and go all day, each
// of them would be one.
const changesApart = time.Hour

// Due says why a run is due at a time, and false when none is. Every is the time from one to the next, 0 for one that is asked
// for. Otherwise a change counts when the look before saw it too: what is attached for some seconds is not waited for.
func (s State) Due(now, before Facts, at time.Time, every time.Duration) (Why, bool) {
	changed := now.Changed(s.Facts)
	over := func(since time.Time, d time.Duration) bool { // also by a clock that was wrong
		return at.Sub(since) >= d || since.After(at.Add(d))
	}
	switch {
	case now.Boot != s.Facts.Boot:
		if s.Facts.Boot == "" { // the first of all
			changed = nil
		}
		return Why{record.AgentBoot, changed}, true
	case len(changed) > 0 && (every == 0 || len(now.Changed(before)) == 0 && over(s.Change, changesApart)):
		return Why{record.AgentChanged, changed}, true
	case every > 0 && over(s.Run, s.Wait(every)):
		return Why{record.AgentDue, changed}, true
	}
	return Why{Reason: record.AgentAsked}, false
}

// firstRetry is the time from a run without numbers to the next; each that has none either doubles it.
const firstRetry = time.Hour

// Wait is the time from the last run to the next, which is every unless that found no numbers.
func (s State) Wait(every time.Duration) time.Duration {
	if s.Unmeasured == 0 {
		return every
	}
	return min(every, firstRetry<<min(s.Unmeasured-1, 20))
}

// SaveLast keeps the record of the last run.
func SaveLast(dir string, doc *record.Agent) error {
	return record.SaveNamed(filepath.Join(dir, lastFile), doc)
}

// LoadLast is the record of the last run, nil where there is none.
func LoadLast(dir string) *record.Agent {
	saved, err := record.Load(filepath.Join(dir, lastFile))
	if err != nil {
		return nil
	}
	return saved.Agent()
}

// SaveMeasured keeps a record for the numbers in it, which later runs may not have.
func SaveMeasured(dir string, doc *record.Agent) error {
	return record.SaveNamed(filepath.Join(dir, measuredFile), doc)
}

// LoadMeasured is the last record with numbers that hold for the machine of doc: doc itself, or one of the same kernel,
// microcode and boot parameters. It is nil where there is none.
func LoadMeasured(dir string, doc *record.Agent) *record.Agent {
	if doc.Measured != nil {
		return doc
	}
	saved, err := record.Load(filepath.Join(dir, measuredFile))
	if err != nil || saved.Agent() == nil {
		return nil
	}
	last := saved.Agent()
	of := func(d *record.Agent) []string {
		h := d.Host
		return []string{d.Machine.ID, h.CPU, h.Kernel, h.KernelBuild, h.Microcode, h.BootParams}
	}
	if !slices.Equal(of(last), of(doc)) {
		return nil
	}
	return last
}
