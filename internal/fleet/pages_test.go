package fleet

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// innerPage is a page of an index with two rows, which leads to the pages 5, 6 and 7.
var innerPage = []byte{2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 7, 0, 16, 0, 21, 0, 0, 0, 5, 0, 0, 0, 0, 6, 0}

func TestPagesBelow(t *testing.T) {
	leaf := slices.Concat([]byte{10}, innerPage[1:])
	for name, of := range map[string]struct {
		page []byte
		want []uint32
		ok   bool
	}{
		"inner": {innerPage, []uint32{5, 6, 7}, true},
		"leaf":  {leaf, nil, true},
		"short": {innerPage[:11], nil, false},
		"cells": {innerPage[:15], nil, false},
		"cell":  {innerPage[:24], nil, false},
		"table": {slices.Concat([]byte{5}, innerPage[1:]), nil, false},
		"hole":  {make([]byte, 512), nil, false},
	} {
		if below, ok := pagesBelow(of.page); !slices.Equal(below, of.want) || ok != of.ok {
			t.Errorf("%s: %v, %v", name, below, ok)
		}
	}
}

// An index that is deeper than SQLite reads is refused before its pages are held.
func TestDeepIndex(t *testing.T) {
	s, err := Create(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.checkIndex(t.Context(), "record_at"); err != nil {
		t.Error(err)
	}
	read, err := s.db.PrepareContext(t.Context(), "SELECT unhex('020000000000000000' || printf('%06x', $1 + 1))")
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	tree := indexTree{read, make([]byte, 100), 100}
	if err := tree.check(t.Context(), 1, maxDepth); err == nil || !strings.Contains(err.Error(), "more than 20 pages above page 21") {
		t.Error(err)
	}
}

// A page leads to no more pages than it has room for.
func FuzzPagesBelow(f *testing.F) {
	f.Add(innerPage)
	f.Add(make([]byte, 12))
	f.Fuzz(func(t *testing.T, page []byte) {
		testutil.Allocates(t, uint64(64<<10+16*len(page)), func() {
			if below, ok := pagesBelow(page); !ok && below != nil || 2*len(below) > len(page) {
				t.Errorf("%d pages, %v", len(below), ok)
			}
		})
	})
}
