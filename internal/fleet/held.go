package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
)

// maxHeld is what a question may hold of a store, in bytes as they are estimated: 100 000 machines, each of which was in two
// setups that no other machine has, take 250 MB.
const maxHeld = 320 << 20

// What is held takes so many bytes beside its texts.
const (
	costMachine = 300 // [Machine] has 168, and two places in lists
	costSetup   = 420 // [Setup] has 320
	costText    = 64  // with its place among those that are known
	costLabel   = 80
	costNumber  = 512 // a row of an answer
)

// held is what is left of the memory of a question.
type held struct{ left int }

// room is the memory of a question.
func (s *Store) room() *held { return &held{s.maxHeld} }

func (h *held) take(n int) error {
	if h.left -= n; h.left < 0 {
		return fmt.Errorf("the machines of that time, or what they were, take more than %d MiB of memory: ask for a shorter time", maxHeld>>20)
	}
	return nil
}

// give gives back what was taken.
func (h *held) give(n int) { h.left += n }

// known are texts of setups that were read before.
type known struct {
	*held
	texts  map[string]string
	labels map[string]map[string]string // by their text in the store
}

// take completes a setup with some number whose values were read.
func (k *known) take(id int64, s *Setup, labels string) error {
	if err := k.held.take(costSetup); err != nil {
		return err
	}
	for i, text := range s.values {
		same, ok := k.texts[text]
		if !ok {
			if err := k.held.take(costText + len(text)); err != nil {
				return err
			}
			k.texts[text] = text
			same = text
		}
		s.values[i] = same
	}
	if calls := s.Value(callRows); calls != "" {
		s.calls = strings.SplitN(calls, callsBetween, maxCalls+1)
	}
	if len(s.calls) > maxCalls {
		return fmt.Errorf("setup %d has impossible names of calls", id)
	}
	of, ok := k.labels[labels]
	if !ok {
		if err := json.Unmarshal([]byte(labels), &of); err != nil {
			return fmt.Errorf("setup %d has impossible labels: %w", id, err)
		}
		if err := k.held.take(costText + 2*len(labels) + (len(of)+1)*costLabel); err != nil {
			return err
		}
		k.labels[labels] = of
	}
	s.labels = of
	return nil
}
