package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"sync"
)

//go:embed page.html
var pageTemplate string

//go:embed page.css
var pageStyle string

// MaxPage is the most a page may have, in bytes.
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
	b := limited{ctx: ctx, most: MaxPage}
	err = t.Execute(&b, struct {
		*view
		Style      template.CSS
		Script     template.JS
		ScriptHash string
	}{v, template.CSS(pageStyle), template.JS(flameScript), base64.StdEncoding.EncodeToString(hash[:])})
	if b.full {
		return fmt.Errorf("make page: %d records fill more than %d MiB: report fewer of them", len(src.Records),
			MaxPage>>20)
	}
	if err != nil {
		return fmt.Errorf("make page: %w", err)
	}
	if _, err := w.Write(b.b.Bytes()); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// limited is a buffer that takes no more than most bytes, and none once ctx is done.
type limited struct {
	b    bytes.Buffer
	ctx  context.Context
	most int
	full bool
}

func (l *limited) Write(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	if l.full = l.full || l.b.Len()+len(p) > l.most; l.full {
		return 0, errFull
	}
	return l.b.Write(p)
}

var errFull = errors.New("full")
