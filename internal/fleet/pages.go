package fleet

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
)

// checkIndex refuses an index of a SQLite file one page of which is there twice, or which has a page that is none of an index. It reads
// each of its pages once.
func (s *Store) checkIndex(ctx context.Context, name string) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // nobody changes the pages meanwhile
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var root uint32
	var pages int64
	if err := tx.QueryRowContext(ctx, "SELECT rootpage, page_count FROM sqlite_schema, pragma_page_count WHERE type = 'index' AND name = $1",
		name).Scan(&root, &pages); err != nil {
		return err
	}
	read, err := tx.PrepareContext(ctx, "SELECT data FROM sqlite_dbpage WHERE pgno = $1")
	if err != nil {
		return err
	}
	defer read.Close()
	tree := indexTree{read, make([]byte, pages/8+1), pages}
	if err := tree.check(ctx, root, maxDepth); err != nil {
		return fmt.Errorf("check index %s: %w", name, err)
	}
	return nil
}

var errDamaged = errors.New("the database is damaged")

// maxDepth is how many pages SQLite follows from a root (BTCURSOR_MAX_DEPTH of its btreeInt.h).
const maxDepth = 20

// indexTree are the pages of an index.
type indexTree struct {
	// read has the bytes of a page by its number.
	read *sql.Stmt
	// seen has a bit for each page that was read, of so many pages.
	seen  []byte
	pages int64
}

// check reads a page, and those below it to some depth.
func (t *indexTree) check(ctx context.Context, page uint32, depth int) error {
	at, bit := page/8, byte(1)<<(page%8)
	switch {
	case depth == 0:
		return fmt.Errorf("%w: it has more than %d pages above page %d", errDamaged, maxDepth, page)
	case page == 0 || int64(page) > t.pages:
		return fmt.Errorf("%w: it has page %d of %d", errDamaged, page, t.pages)
	case t.seen[at]&bit != 0:
		return fmt.Errorf("%w: it has page %d twice", errDamaged, page)
	}
	t.seen[at] |= bit
	var data []byte
	if err := t.read.QueryRowContext(ctx, page).Scan(&data); err != nil {
		return fmt.Errorf("read page %d: %w", page, err)
	}
	below, ok := pagesBelow(data)
	if !ok {
		return fmt.Errorf("%w: page %d is not one of an index", errDamaged, page)
	}
	for _, page := range below {
		if err := t.check(ctx, page, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// pagesBelow are those that a page of an index leads to, at most one for each two of its bytes; not ok when it is no such page
// (https://www.sqlite.org/fileformat2.html, section 1.6).
func pagesBelow(page []byte) (below []uint32, ok bool) {
	const inner, leaf, header = 2, 10, 12
	switch {
	case len(page) < header:
		return nil, false
	case page[0] == leaf:
		return nil, true
	case page[0] != inner:
		return nil, false
	}
	cells := int(binary.BigEndian.Uint16(page[3:]))
	if header+2*cells > len(page) {
		return nil, false
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(page[header+2*i:]))
		if at+4 > len(page) {
			return nil, false
		}
		below = append(below, binary.BigEndian.Uint32(page[at:]))
	}
	return append(below, binary.BigEndian.Uint32(page[8:])), true
}
