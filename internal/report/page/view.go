package page

import "github.com/unthunk/unthunk/internal/record"

// Source is what a page is made of: saved records, and the trends of a folder.
type Source struct {
	Records []*record.Saved
	History *record.History // may be nil
	// Kernels are what the records of lab have of several kernels.
	Kernels []record.LabHistory
	// Section is the one that is written alone, of those that links name; empty for the whole page.
	Section string
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
	// Banners warn of what changes the answer.
	Banners []note
	// Glance says what, how much, and what to do; it may be nil.
	Glance   *block
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
	// Folded blocks are closed at first; they have a heading.
	Folded bool
	Text   []string
	Figure *figure
	Tables []*table
	Lists  []list
}

// list is a list of notes; a title folds it.
type list struct {
	Title string
	Notes []note
}

// addText adds a paragraph that is not empty.
func (b *block) addText(text string) {
	if text != "" {
		b.Text = append(b.Text, text)
	}
}

// addList adds a list that is not empty.
func (b *block) addList(title string, notes []note) {
	if len(notes) > 0 {
		b.Lists = append(b.Lists, list{title, notes})
	}
}

// note is a sentence, and the row or the file it is about.
type note struct{ Word, Text string }
