package page

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// viewer makes a view of a source. Each section has a file of its own.
type viewer struct {
	ctx context.Context
	src Source
	// first is the record of the title, nil when there is no record.
	first *record.Saved
	// labels name records in few letters.
	labels map[*record.Saved]string
	// draw is set when figures are wanted.
	draw bool
	// ids counts the figures.
	ids int
	// merged are the parts of records that others of the same machine have better.
	merged map[mergedPart]*record.Saved
	// err is why the view could not be made.
	err error
}

// fail keeps the first error.
func (v *viewer) fail(err error) { v.err = cmp.Or(v.err, err) }

// newView is the view of a source, with figures when draw is set. It ends with the error
// of ctx soon after ctx is done.
func newView(ctx context.Context, src Source, draw bool) (*view, error) {
	v := &viewer{ctx: ctx, src: src, labels: recordLabels(src.Records), draw: draw, first: firstRecord(src.Records)}
	v.merge()
	n := len(src.Records)
	if src.History != nil {
		for _, g := range src.History.Groups {
			n += len(g.Records)
		}
	}
	out := &view{Version: cells.Clean(src.Version), Count: cells.Plural(n, "record")}
	v.head(out)
	var there []string
	for _, s := range v.sections() {
		if len(s.Blocks) == 0 {
			continue
		}
		there = append(there, s.ID)
		if src.Section == "" || src.Section == s.ID {
			out.Sections = append(out.Sections, s)
		}
	}
	if src.Section != "" && len(out.Sections) == 0 {
		v.fail(fmt.Errorf("the records have nothing for section %q: there are %s", src.Section, strings.Join(there, ", ")))
	}
	v.fail(ctx.Err())
	return out, v.err
}

// sections are the sections of a page in their order; one without blocks is left out.
// A new section is a line here and a file with its blocks.
func (v *viewer) sections() []section {
	type unmade struct {
		id, title string
		blocks    func() []block
	}
	sections := []unmade{
		{"path", v.pathTitle(), v.pathBlocks},
		{"fleet", "The fleet", v.fleetBlocks},
		{"agent", "A machine at work", v.agentBlocks},
		{"ladder", "The bulk ladder", v.ladderBlocks},
		{"behavior", "What comes out otherwise", v.behaviorBlocks},
		{"changes", "What changed", v.changeBlocks},
		{"history", "Over time", v.historyBlocks},
		{"kernels", "From kernel to kernel", v.kernelBlocks},
		{"lab", "With and without, counted exactly", v.labBlocks},
		{"cost", "What a packet costs a program", v.costBlocks},
		{"watch", "A program at work", v.watchBlocks},
		{"prices", "What an indirect call costs", v.priceBlocks},
		{"flames", "Flame graphs", v.flameBlocks},
		{"attached", "Which XDP programs run", v.attachedBlocks},
		{"programs", "What is in a program’s code", v.programBlocks},
		{"branches", "The indirect branches, and what one is", v.branchBlocks},
		{"machines", "Machines", v.machineBlocks},
		{"records", "Records", v.recordBlocks},
	}
	if v.first != nil && v.first.Kind == "compare" {
		i := slices.IndexFunc(sections, func(s unmade) bool { return s.id == "changes" })
		changes := sections[i]
		sections = slices.Insert(slices.Delete(sections, i, i+1), 0, changes)
	}
	var out []section
	for _, s := range sections {
		if v.ctx.Err() != nil {
			break
		}
		out = append(out, section{s.id, s.title, s.blocks()})
	}
	return out
}

// id is a new one for a figure.
func (v *viewer) id() string {
	v.ids++
	return fmt.Sprintf("f%d", v.ids)
}

// recordLabels are the files' names, with as much of the folder as tells them apart.
func recordLabels(records []*record.Saved) map[*record.Saved]string {
	count := make(map[string]int)
	for _, s := range records {
		count[filepath.Base(s.File)]++
	}
	labels := make(map[*record.Saved]string)
	for i, s := range records {
		name := filepath.Base(s.File)
		switch {
		case s.File == "":
			name = fmt.Sprintf("record %d", i+1)
		case count[name] > 1:
			name = s.File
		}
		labels[s] = cells.Clean(name)
	}
	return labels
}

// heading names a record, where there is more than one.
func (v *viewer) heading(s *record.Saved) string {
	if len(v.src.Records) == 1 {
		return ""
	}
	return v.labels[s]
}
