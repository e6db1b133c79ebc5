package xray

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/xdppath"
)

// unnamed stands for all BPF programs that have no symbol.
const unnamed = "programs without a symbol"

// Graph is the call graph of the path, with the rows of a record of it.
func (p *Path) Graph(rows []record.SiteRow) *record.CallGraph {
	names := p.names()
	g := &record.CallGraph{}
	there := make(map[record.GraphCall]bool)
	add := func(c record.GraphCall) {
		if !there[c] {
			there[c] = true
			g.Calls = append(g.Calls, c)
		}
	}
	byName := make(map[string]string) // of targets, which are known by name alone
	for _, f := range p.Functions {
		byName[f.Name] = names[f.Addr]
		g.Functions = append(g.Functions, names[f.Addr])
	}
	slices.Sort(g.Functions)
	g.Functions = slices.Compact(g.Functions)
	for _, f := range p.Functions {
		for _, callee := range f.Callees {
			add(record.GraphCall{From: names[f.Addr], To: names[callee]})
		}
	}
	for i, s := range p.Sites {
		to := slices.Clone(s.Targets)
		for j, target := range to {
			to[j] = cmp.Or(byName[target], target)
		}
		if len(to) == 0 {
			to = []string{cmp.Or(s.Pointer, fmt.Sprintf("? of %s+%#x", s.Function, s.Offset))}
		}
		for _, target := range to {
			add(record.GraphCall{From: names[s.Entry], To: target, Site: &rows[i]})
		}
	}
	slices.SortStableFunc(g.Calls, func(a, b record.GraphCall) int { return strings.Compare(a.From, b.From) })
	return g
}

// names are those of the path's functions by address, no two alike: functions of one name
// have their module or their address behind it.
func (p *Path) names() map[uint64]string {
	byName := make(map[string][]xdppath.Function)
	for _, f := range p.Functions {
		name := f.Name
		switch {
		case strings.HasPrefix(name, "0x") && p.kernel.Live:
			name = unnamed
		case strings.HasPrefix(name, "."): // a label within a function written in assembly
			if s, _, ok := p.kernel.Symbols.Find(f.Addr - 1); ok {
				name = s.Name + name
			}
		}
		byName[name] = append(byName[name], f)
	}
	out := make(map[uint64]string)
	for name, same := range byName {
		for _, f := range same {
			out[f.Addr] = name
			if len(same) > 1 && name != unnamed {
				out[f.Addr] = fmt.Sprintf("%s at %#x", name, f.Addr)
			}
		}
	}
	return out
}
