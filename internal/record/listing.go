package record

import (
	"errors"
	"fmt"
)

// Listing is the annotated code of a function.
type Listing struct {
	Name  string        `json:"name"`
	Lines []ListingLine `json:"lines"`
}

// ListingLine is one instruction.
type ListingLine struct {
	// Offset in bytes from the function's start.
	Offset uint64 `json:"offset"`
	// Text is the instruction in GNU syntax, Note what it is there for.
	Text string `json:"text"`
	Note string `json:"note,omitempty"`
	// Indirect is set for an indirect branch.
	Indirect bool `json:"indirect,omitempty"`
}

// Limits on the listings of a record.
const (
	// MaxListings of a record.
	MaxListings = 8
	// MaxLines of a listing.
	MaxLines = 200
)

func checkListings(listings []Listing) error {
	if n := len(listings); n > MaxListings {
		return fmt.Errorf("%d listings: at most %d are possible", n, MaxListings)
	}
	for _, l := range listings {
		if l.Name == "" || !plain(l.Name) {
			return fmt.Errorf("a listing has the impossible name %.60q", l.Name)
		}
		if len(l.Lines) > MaxLines {
			return errors.New("listing " + l.Name + ": too many lines")
		}
		for _, line := range l.Lines {
			if err := checkTexts([]string{line.Text, line.Note}); err != nil {
				return fmt.Errorf("listing %s: %w", l.Name, err)
			}
		}
	}
	return nil
}
