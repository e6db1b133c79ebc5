package main

import (
	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
)

// thunkCode is the annotated code that indirect calls and returns go through in the
// running kernel: the thunk that most of the sites take, the return thunk and what
// that calls. What has no symbol is left out.
func thunkCode(k *kernel.Kernel, sites []record.SiteRow, fp host.Fingerprint) []record.Listing {
	if !k.Live {
		return nil // not patched yet
	}
	count := make(map[string]int)
	most := ""
	for _, site := range sites {
		if site.Thunk == "" {
			continue
		}
		count[site.Thunk]++
		if n := count[site.Thunk]; n > count[most] || n == count[most] && site.Thunk < most {
			most = site.Thunk
		}
	}
	names := []string{most, fp.ReturnThunk}
	switch fp.ReturnThunk {
	case "srso_return_thunk":
		names = append(names, "srso_safe_ret")
	case "srso_alias_return_thunk":
		names = append(names, "srso_alias_safe_ret")
	}
	var out []record.Listing
	for _, name := range names {
		if l, ok := listing(k, name); ok {
			out = append(out, l)
		}
	}
	return out
}

// listing is the annotated code of a function up to its last instruction that a note
// explains: what follows in a thunk is padding.
func listing(k *kernel.Kernel, name string) (record.Listing, bool) {
	const most = 40
	out := record.Listing{Name: name, Lines: []record.ListingLine{}}
	if name == "" {
		return out, false
	}
	symbol, code, err := function(k, name)
	if err != nil {
		return out, false
	}
	last := 0
	for _, line := range branch.Annotate(code, symbol.Addr, k.Symbols.Starts, nil) {
		if len(out.Lines) == most {
			break
		}
		out.Lines = append(out.Lines, record.ListingLine{
			Offset: line.Addr - symbol.Addr, Text: line.Text, Note: line.Note, Indirect: line.Indirect,
		})
		if line.Note != "" {
			last = len(out.Lines)
		}
	}
	out.Lines = out.Lines[:last]
	return out, last > 0
}
