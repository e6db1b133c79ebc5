package branch

import "strings"

// SiteKind is how an indirect branch is made where it stands in a function.
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
	// Thunk is the symbol it goes through; empty when it has none.
	Thunk string
	// Target is the address of the thunk, 0 when there is none.
	Target uint64
}

// Returns counts the returns of functions: by the symbol of the thunk they
// jump to, and under "ret" where they are bare.
type Returns map[string]int

// Sites finds every indirect branch and return of the function that begins
// at addr. follow gives the first bytes of code that has no symbol, for the
// ITS thunks that the kernel allocates at boot; it may be nil, and may
// return nil.
func Sites(code []byte, addr uint64, resolve Resolver, follow func(addr uint64) []byte) ([]Site, Returns) {
	var (
		sites   []Site
		returns = make(Returns)
		before  Step // the last instruction that is no padding
	)
	end := addr + uint64(len(code))
	for inst := range Scan(code, addr) {
		site := Site{Offset: inst.Addr - addr, Jump: inst.Kind != CallDirect && inst.Kind != CallIndirect}
		switch inst.Kind {
		case Return:
			returns["ret"]++
		case CallDirect, JumpDirect, JumpCond:
			if inst.Target >= addr && inst.Target < end {
				break
			}
			switch name := resolve.lookup(inst.Target); {
			case ReturnThunk(name) && inst.Kind != CallDirect:
				returns[name]++
			case strings.HasPrefix(name, "__x86_indirect_"):
				site.Kind, site.Thunk, site.Target = SiteThunk, name, inst.Target
				if strings.HasPrefix(name, "__x86_indirect_its_thunk_") {
					site.Kind = SiteITS
				}
				sites = append(sites, site)
			case name == "" && follow != nil && inst.Kind != JumpCond:
				thunk := NameIndirectThunk(follow(inst.Target), inst.Target, resolve)
				if thunk.Kind == ThunkITS {
					site.Kind, site.Target = SiteITS, inst.Target
					sites = append(sites, site)
				}
			}
		case CallIndirect, JumpIndirect:
			switch {
			case inst.reg == 0:
				site.Kind = SiteMemory
			case before.what == lfence:
				site.Kind = SiteLfence
			default:
				site.Kind = SiteRegister
			}
			sites = append(sites, site)
		}
		if inst.what != pad {
			before = inst
		}
	}
	return sites, returns
}
