package branch

// SiteKind is how an indirect branch is made in its function.
type SiteKind string

const (
	// SiteThunk goes through a thunk shared by the whole kernel.
	SiteThunk SiteKind = "thunk"
	// SiteITS goes to an ITS thunk.
	SiteITS SiteKind = "its-thunk"
	// SiteLfence is "lfence; call *reg".
	SiteLfence SiteKind = "lfence"
	// SiteRegister is "call *reg" or "jmp *reg" with nothing around it:
	// what the kernel makes of a thunk call when it needs no retpolines.
	SiteRegister SiteKind = "register"
	// SiteMemory takes its target from memory: "call *8(%rax)". Compilers
	// only emit it without retpolines, or for switch tables.
	SiteMemory SiteKind = "memory"
)

// Site is one indirect branch of a function.
type Site struct {
	// Offset from the start of the function, in bytes.
	Offset uint64
	Kind   SiteKind
	// Jump is set for a tail call or a switch, unset for a call.
	Jump bool
	// Register is that of its target, "rax", through a thunk or not; empty when
	// the target comes from memory or the thunk does not tell.
	Register string
	// Thunk is the symbol that it goes through; empty when there is no thunk or
	// the thunk has no symbol.
	Thunk string
	// Target is the address of the thunk, 0 when there is no thunk.
	Target uint64
	// Check is how CFI tests the target, CheckLen how many bytes of code that has in
	// front of the branch. With the preamble of FineIBT ([Check.Preamble]) Register is 16
	// less than the address of the function.
	Check    Check
	CheckLen uint64
}

// Returns counts the returns of functions: by the symbol of the thunk they
// jump to, and under "ret" where they are bare.
type Returns map[string]int

// Sites finds every indirect branch and return of the function that begins
// at addr, as [EachBranch] classifies them. follow gives the first bytes of
// code that has no symbol, for the ITS thunks that the kernel allocates at
// boot; it may be nil, and may return nil.
//
// A Site says where a branch goes, so a thunk with a symbol is not read: one
// that the kernel patched to "jmp *%rax" is a [SiteThunk] all the same.
func Sites(code []byte, addr uint64, resolve Resolver, follow Follow) ([]Site, Returns) {
	var (
		sites   []Site
		returns = make(Returns)
		unnamed Follow
	)
	if follow != nil {
		unnamed = func(addr uint64) []byte {
			if resolve.lookup(addr) != "" {
				return nil
			}
			return follow(addr)
		}
	}
	for b := range EachBranch(code, addr, resolve, nil, unnamed) {
		switch {
		case b.Returns() && b.Name == "":
			returns["ret"]++
		case b.Returns():
			returns[b.Name]++
		case b.Indirect():
			site := Site{Offset: b.Offset, Kind: b.siteKind(), Jump: b.Jump, Register: b.Register, Target: b.Target,
				Check: b.Check, CheckLen: b.CheckLen}
			if b.Target != 0 {
				site.Thunk = b.Name
			}
			sites = append(sites, site)
		}
	}
	return sites, returns
}

// siteKind is how an indirect branch is made.
func (b *Branch) siteKind() SiteKind {
	switch b.Class {
	case ClassRetpoline, ClassCallDepth:
		return SiteThunk
	case ClassITS:
		return SiteITS
	case ClassLfence:
		return SiteLfence
	case ClassRegister:
		return SiteRegister
	}
	return SiteMemory
}

// Instructions is how many run from the first of its check, or of an lfence before it, to the
// first of the function that it enters, when it is at addr: the thunk's among them, and the nop
// behind a call that fills the room of a longer one. follow reads code; the result is 0 when that
// cannot be read. A preamble of the function ([NamePreamble]) is not among them.
func (s *Site) Instructions(addr uint64, follow Follow) int {
	n := s.Check.Instructions() + 1
	if s.Kind == SiteLfence {
		n++
	}
	if s.Target == 0 {
		return n + filled(follow(addr))
	}
	thunk := thunkInstructions(s.Target, follow)
	switch {
	case thunk == 0:
		return 0
	case s.Check == CheckParanoid:
		thunk-- // the jne in it is the check's
	}
	return n + thunk
}

// filled counts the nop behind a call at the beginning of code. Compilers write the call of a thunk,
// whose room it has, in 5 bytes, or 6 with a prefix.
func filled(code []byte) int {
	length := 0
	for step := range Scan(code, 0) {
		switch {
		case length == 0 && step.Kind == CallIndirect:
			length = step.Len
		case length > 0 && step.Nop() && (length+step.Len == 5 || length+step.Len == 6):
			return 1
		default:
			return 0
		}
	}
	return 0
}

// maxThunk bounds the instructions of a thunk; those known have up to 7.
const maxThunk = 16

// thunkInstructions is how many run in the indirect thunk at addr until it is left: direct jumps
// and calls are followed, conditional jumps are not taken. It is 0 when the code cannot be read.
func thunkInstructions(addr uint64, follow Follow) int {
	for n := 0; n < maxThunk; {
		code := follow(addr)
		next := addr
		for step := range Scan(code, addr) {
			if n++; n > maxThunk {
				return 0
			}
			switch step.Kind {
			case Return, JumpIndirect:
				return n
			case CallDirect, JumpDirect:
				next = step.Target
			case CallIndirect, Trap, Bad:
				return 0
			}
			if next != addr {
				break
			}
		}
		if next == addr {
			return 0
		}
		addr = next
	}
	return 0
}
