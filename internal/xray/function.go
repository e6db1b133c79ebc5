package xray

import (
	"context"
	"slices"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ksym"
)

// Function is the code of one function.
type Function struct {
	ksym.Symbol
	Code []byte

	kernel *kernel.Kernel
}

// ReadFunction reads a function by its name, or by the name that the source gives it.
func ReadFunction(k *kernel.Kernel, name string) (*Function, error) {
	s, code, err := k.ReadFunction(name)
	if err != nil {
		return nil, err
	}
	return &Function{s, code, k}, nil
}

// Branches are its calls, jumps and returns.
func (f *Function) Branches() (out []branch.Branch) {
	for b := range f.kernel.Branches(f.Code, f.Addr) {
		out = append(out, *b)
	}
	return out
}

// Lines are its instructions. Those of a thunk have notes of what they are there for.
func (f *Function) Lines() []branch.Line {
	return slices.Collect(f.kernel.Annotated(f.Code, f.Addr))
}

// NewCode is a document about code of a kernel, with nothing in it.
func NewCode(k *kernel.Kernel) *record.Code {
	return &record.Code{Head: record.New[record.SiteRow]("code", kernelHost(k)).Head}
}

// Listing is the document of its instructions.
func (f *Function) Listing() *record.Code {
	c := NewCode(f.kernel)
	c.Function, c.Address, c.Lines = f.Name, f.Addr, f.lines()
	return c
}

// BranchList is the document of its branches.
func (f *Function) BranchList() *record.Code {
	c := NewCode(f.kernel)
	c.Function, c.Address, c.Branches = f.Name, f.Addr, []record.CodeBranch{}
	for _, b := range f.Branches() {
		verb := "call"
		switch {
		case b.Returns():
			verb = "ret"
		case b.Jump:
			verb = "jmp"
		}
		c.Branches = append(c.Branches, record.CodeBranch{
			Offset: b.Offset, Verb: verb, Class: string(b.Class), Conditional: b.Conditional, Indirect: b.Indirect(),
			To: b.Name, Register: b.Register, Check: string(b.Check), Pending: b.Pending,
			Within: b.Target != 0 && b.Target-f.Addr < uint64(len(f.Code)),
		})
	}
	return c
}

// Totals is the document of all branches of a kernel.
func Totals(ctx context.Context, k *kernel.Kernel) (*record.Code, error) {
	totals, err := k.Totals(ctx)
	if err != nil {
		return nil, err
	}
	c := NewCode(k)
	c.Totals = &record.CodeTotals{Functions: totals.Functions, Size: totals.Size, Classes: make(map[string]int), Live: k.Live}
	for class, n := range totals.Branches {
		c.Totals.Classes[string(class)] = n
	}
	return c, nil
}

// thunks is the annotated code that indirect calls and returns go through: the thunk
// that most of the sites take, the return thunk and what that calls. What has no symbol
// is left out.
func thunks(k *kernel.Kernel, sites []xdppath.Site, returnThunk string) (out []record.Listing) {
	names := []string{mostTaken(sites), returnThunk}
	switch returnThunk {
	case "srso_return_thunk":
		names = append(names, "srso_safe_ret")
	case "srso_alias_return_thunk":
		names = append(names, "srso_alias_safe_ret")
	}
	for _, name := range names {
		if f, err := ReadFunction(k, name); err == nil {
			if l := f.listing(); len(l.Lines) > 0 {
				out = append(out, l)
			}
		}
	}
	return out
}

// mostTaken is the thunk of most sites, the first one by name of equals; "" when no site
// takes one.
func mostTaken(sites []xdppath.Site) (most string) {
	count := make(map[string]int)
	for _, s := range sites {
		if s.Thunk == "" {
			continue
		}
		count[s.Thunk]++
		if n := count[s.Thunk]; n > count[most] || n == count[most] && s.Thunk < most {
			most = s.Thunk
		}
	}
	return most
}

// maxLines bounds a listing.
const maxLines = 40

// listing is the annotated code of a function up to the last instruction that a note
// explains: what follows in a thunk is padding.
func (f *Function) listing() record.Listing {
	lines := f.lines()
	lines = lines[:min(maxLines, len(lines))]
	last := 0
	for i, line := range lines {
		if line.Note != "" {
			last = i + 1
		}
	}
	return record.Listing{Name: f.Name, Lines: lines[:last]}
}

// lines are its instructions as a record has them.
func (f *Function) lines() []record.ListingLine {
	out := []record.ListingLine{}
	for _, line := range f.Lines() {
		out = append(out, record.ListingLine{
			Offset: line.Addr - f.Addr, Text: line.Text, Note: line.Note, Indirect: line.Indirect,
		})
	}
	return out
}
