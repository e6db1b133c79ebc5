package xdppath

import (
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// StageOf is the stage on the path of a function by its name; "" when the name does
// not tell.
func StageOf(name string) functions.Stage {
	if s := functions.StageOf(name); s.OnPath() {
		return s
	}
	return ""
}

// rootOf is the entry of the table for a symbol that is a root of every path.
func rootOf(name string) (functions.Function, bool) {
	f, ok := functions.Find(name)
	return f, ok && f.Roles&functions.Root != 0
}

// rootStage is the stage of such a root. The path knows no softirq: what runs polls is
// a part of receiving.
func rootStage(f functions.Function) functions.Stage {
	if f.Stage.OnPath() {
		return f.Stage
	}
	return functions.StageReceive
}

func rareCall(name string) bool { return functions.Has(name, functions.Rare) }

// thunkSymbol tells whether a direct branch to name is an indirect branch or
// a return in disguise.
func thunkSymbol(name string) bool {
	return strings.HasPrefix(name, "__x86_indirect_") || strings.HasSuffix(name, "_return_thunk") ||
		name == "__x86_return_skl" || name == "__fentry__" ||
		strings.HasPrefix(name, "srso_") || strings.HasPrefix(name, "clear_bhb_")
}
