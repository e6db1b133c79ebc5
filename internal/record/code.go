package record

// Code is what xray says of the code of a function, or of a whole kernel, with --json. It is
// written only: no verb reads it.
type Code struct {
	Head
	// Function is its name and Address where it begins; empty and 0 for a whole kernel.
	Function string `json:"function,omitempty"`
	Address  uint64 `json:"address,omitempty"`
	// Lines are its instructions, of --asm.
	Lines []ListingLine `json:"lines,omitempty"`
	// Branches are its calls, jumps and returns, of --func.
	Branches []CodeBranch `json:"branches,omitempty"`
	// Totals are the branches of the whole kernel, of --all.
	Totals *CodeTotals `json:"totals,omitempty"`
}

// CodeBranch is a call, a jump or a return of a function.
type CodeBranch struct {
	// Offset in bytes from the function's start.
	Offset uint64 `json:"offset"`
	// Verb is "call", "jmp" or "ret", Class what the branch is made of.
	Verb  string `json:"verb"`
	Class string `json:"class"`
	// Conditional is set for jumps that may not be taken, Indirect for an indirect branch.
	Conditional bool `json:"conditional,omitempty"`
	Indirect    bool `json:"indirect,omitempty"`
	// To is the symbol of the target or of the thunk, Register that of an indirect
	// branch.
	To       string `json:"to,omitempty"`
	Register string `json:"register,omitempty"`
	// Check is how CFI tests the target of an indirect branch, as of [SiteRow].
	Check string `json:"check,omitempty"`
	// Within is set for a jump that stays in the function.
	Within bool `json:"within,omitempty"`
	// Pending is what the kernel will put there, where code was not patched yet.
	Pending string `json:"pending,omitempty"`
}

// CodeTotals are the branches of a whole kernel.
type CodeTotals struct {
	// Functions is how many were read, Size how many bytes the text has.
	Functions int    `json:"functions"`
	Size      uint64 `json:"size"`
	// Classes is how many branches there are of each class.
	Classes map[string]int `json:"classes"`
	// Live is set for the running kernel's memory; a file is not patched yet.
	Live bool `json:"live,omitempty"`
}
