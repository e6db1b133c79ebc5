package page

import "github.com/unthunk/unthunk/internal/record"

// Source is what a page is made of: saved records, and the trends of a folder.
type Source struct {
	Records []*record.Saved
	History *record.History // may be nil
	// Version of unthunk that makes the page.
	Version string
}

// view is what a page says: the same for HTML, which draws the figures too, and for
// Markdown.
type view struct {
	Title string
	// About says when and on what the title's record was measured.
	About []string
	// Summary is a few sentences beneath the title.
	Summary []string
	// Banners stand above all sections.
	Banners  []note
	Sections []section
	Version  string
	// Count is how many records the page is made of, in words.
	Count string
}

type section struct {
	// ID is what a link within the page names.
	ID, Title string
	Blocks    []block
}

// block is one record's part of a section.
type block struct {
	Heading string
	Text    []string
	Figure  *figure
	Tables  []*table
	// Notes are a list; NotesTitle folds it.
	Notes      []note
	NotesTitle string
}

// note is a sentence, and the row or the file it is about.
type note struct{ Word, Text string }
