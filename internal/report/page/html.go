package page

import (
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"sync"

	"github.com/unthunk/unthunk/internal/memory"
)

//go:embed page.html
var pageTemplate string

//go:embed page.css
var pageStyle string

// MaxPage is the most a page, or the Markdown of one, may have, in bytes.
const MaxPage = 2 << 20

// pageTemplateOf is the template, read once: that takes longer than a small page.
var pageTemplateOf = sync.OnceValues(func() (*template.Template, error) {
	return template.New("page").Parse(pageTemplate)
})

// HTML writes one page that shows the records: the answer, pictures, tables, machines.
// It loads nothing and needs no network; strings of the records can be no more than
// text. A page of more than [MaxPage] is an error. It ends with the error of ctx soon
// after ctx is done.
func HTML(ctx context.Context, w io.Writer, src Source) error {
	v, err := newView(ctx, src, true)
	if err != nil {
		return fmt.Errorf("make page: %w", err)
	}
	t, err := pageTemplateOf()
	if err != nil {
		return fmt.Errorf("read page template: %w", err)
	}
	hash := sha256.Sum256([]byte(flameScript))
	b := memory.NewBuffer(ctx, MaxPage)
	err = t.Execute(b, struct {
		*view
		Style      template.CSS
		Script     template.JS
		ScriptHash string
	}{v, template.CSS(pageStyle), template.JS(flameScript), base64.StdEncoding.EncodeToString(hash[:])})
	if err != nil {
		return fmt.Errorf("make page: %w", tooMuch(cmp.Or(b.Err(), err)))
	}
	if _, err := b.WriteTo(w); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// tooMuch says of a full buffer what filled it.
func tooMuch(err error) error {
	if full, ok := errors.AsType[*memory.FullError](err); ok {
		return fmt.Errorf("the records fill more than %d MiB: report fewer of them", full.Most>>20)
	}
	return err
}
