package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
)

//go:embed page.html
var pageTemplate string

//go:embed page.css
var pageStyle string

// MaxPage is the most a page may have, in bytes.
const MaxPage = 2 << 20

// HTML writes one page that shows the records: pictures, tables, machines, warnings.
// It loads nothing and needs no network; strings of the records can be no more than
// text. A page of more than [MaxPage] is an error.
func HTML(w io.Writer, src Source) error {
	v := newView(src, true)
	hash := sha256.Sum256([]byte(flameScript))
	t, err := template.New("page").Parse(pageTemplate)
	if err != nil {
		return fmt.Errorf("read page template: %w", err)
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		*view
		Style      template.CSS
		Script     template.JS
		ScriptHash string
	}{v, template.CSS(pageStyle), template.JS(flameScript), base64.StdEncoding.EncodeToString(hash[:])})
	if err != nil {
		return fmt.Errorf("make page: %w", err)
	}
	if b.Len() > MaxPage {
		return fmt.Errorf("make page: %d records fill more than %d MiB: report fewer of them", len(src.Records),
			MaxPage>>20)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}
