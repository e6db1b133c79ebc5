package page

import (
	"bytes"
	"fmt"
	"io"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
)

// ComparisonMarkdown writes what two records differ in for a comment on a pull request
// (GitHub Flavored Markdown): the finding, the rows, what the machines differ in, warnings.
// Strings of the records are text only, as in [Markdown].
func ComparisonMarkdown(w io.Writer, c record.Changes) error {
	saved := record.NewSaved(c)
	v := &viewer{src: Source{Records: []*record.Saved{saved}}, first: saved}
	var b bytes.Buffer
	fmt.Fprintf(&b, "### %s\n\n", markdown(conclusion.Of(saved).Title))
	for i, block := range v.changeBlocks() {
		if i == 0 {
			fmt.Fprintf(&b, "%s\n\n", markdown(block.Heading))
		}
		block.Heading = ""
		block.markdown(&b)
	}
	if _, err := w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n"))); err != nil {
		return fmt.Errorf("write Markdown: %w", err)
	}
	return nil
}
