package host

import (
	"fmt"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/ksym"
)

// cfi is what kernel memory says about control flow integrity. Nothing in /sys does.
type cfi struct {
	// checks counts the indirect branches of the redirect path by what tests their target.
	checks map[branch.Check]int
	// preambles counts its functions that have the preamble of FineIBT in front of them,
	// poisoning those that clear arguments in it.
	preambles, poisoning int
}

// sites counts the branches of a function.
func (c *cfi) sites(sites []branch.Site) {
	for _, s := range sites {
		c.checks[s.Check]++
	}
}

// readPreambles counts what stands in front of functions, if branches go there.
func (c *cfi) readPreambles(k *kernel.Kernel, functions []ksym.Symbol) {
	if c.checks[branch.CheckFineIBT]+c.checks[branch.CheckParanoid] == 0 {
		return
	}
	for _, f := range functions {
		if p, ok := k.Preamble(f.Addr); ok {
			c.preambles++
			if p.Poisons {
				c.poisoning++
			}
		}
	}
}

// mode is the kernel's, in the words of its parameter cfi=.
func (c *cfi) mode() string {
	mode := "off"
	for _, m := range []struct {
		check branch.Check
		name  string
	}{
		{branch.CheckKCFI, "kcfi"}, {branch.CheckKCFIUDB, "kcfi"}, {branch.CheckKCFIARM64, "kcfi"}, {branch.CheckFineIBT, "fineibt"},
		{branch.CheckParanoid, "fineibt,paranoid"},
	} {
		if c.checks[m.check] > 0 {
			mode = m.name
		}
	}
	if c.poisoning > 0 {
		mode += ",bhi"
	}
	return mode
}

// row is the finding of `check`.
func (c *cfi) row(name string) Finding {
	all, checked := 0, 0
	for check, n := range c.checks {
		all += n
		if check != branch.CheckNone && check != branch.CheckOff {
			checked += n
		}
	}
	row := Finding{Name: name, Level: LevelOK}
	row.Found = fmt.Sprintf("%s: %d of %d indirect branches of the redirect path test their target", c.mode(), checked, all)
	if checked > 0 {
		row.Level = LevelNote
		row.Do = "where only trusted code runs, boot once with cfi=off to see the price"
	}
	switch {
	case c.checks[branch.CheckParanoid] > 0:
		row.Means = "each runs 4 instructions more and loads from the text of what it calls, which runs at least 3 more"
	case c.checks[branch.CheckFineIBT] > 0:
		row.Means = "each runs 3 instructions more, and what it calls at least 3 more before its first"
	case c.checks[branch.CheckKCFIUDB] > 0:
		row.Means = "each runs 4 instructions more, one of which loads from the text of what it calls"
	case c.checks[branch.CheckKCFIARM64] > 0:
		row.Means = "each runs 5 instructions more, one of which loads from the text of what it calls"
	case checked > 0:
		row.Means = "each runs 3 instructions more, one of which loads from the text of what it calls"
	case c.checks[branch.CheckOff] > 0:
		row.Means = "the kernel was built with CFI and has cfi=off: each indirect branch runs a jump over its check"
	}
	if c.poisoning > 0 {
		row.Means += fmt.Sprintf("; %d of %d such functions also set arguments to 0 where the check fails",
			c.poisoning, c.preambles)
	}
	return row
}
