package branch

import (
	"strings"
	"testing"
)

// at is where the tables' code stands: the lower half of a 64-byte line.
const at = 0xffffffff82204bc0

// symbols of the tables.
func resolve(addr uint64) (string, bool) {
	name, ok := map[uint64]string{
		at:                 "__x86_indirect_thunk_rax",
		0xffffffff82205660: "srso_return_thunk",
		0xffffffff82205640: "srso_safe_ret",
		0xffffffff822057f0: "__x86_return_thunk",
		0xffffffff822057e0: "its_return_thunk",
		0xffffffff822056c0: "retbleed_return_thunk",
		0xffffffff82205710: "call_depth_return_thunk",
		0xffffffff82204dc0: "__x86_indirect_call_thunk_rax",
		0xffffffff822051de: "__x86_indirect_paranoid_thunk_rax",
		0xffffffff822051e0: "__x86_indirect_its_thunk_rax",
		0xffffffff82204be0: "__x86_indirect_thunk_rcx",
	}[addr]
	return name, ok
}

func TestNameIndirectThunk(t *testing.T) {
	for _, tt := range []struct {
		name                       string
		addr                       uint64
		code                       string
		kind                       ThunkKind
		register, capture, return_ string
	}{
		{"6.18 srso", at, "\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xe9\x91\x0a\x00\x00\x90\x0f\x1f\x44\x00\x00",
			ThunkRetpoline, "rax", "int3", "srso_return_thunk"},
		{"6.18 r11", at + 0x160, "\xe8\x01\x00\x00\x00\xcc\x4c\x89\x1c\x24\xe9\x31\x09\x00\x00\x90",
			ThunkRetpoline, "r11", "int3", "srso_return_thunk"},
		{"6.1 bare ret", at, "\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3\xcc\xcc\xcc\xcc\xcc",
			ThunkRetpoline, "rax", "int3", "ret"},
		{"4.15", at, "\xe8\x07\x00\x00\x00\xf3\x90\x0f\xae\xe8\xeb\xf9\x48\x89\x04\x24\xc3",
			ThunkRetpoline, "rax", "pause; lfence; jmp", "ret"},
		{"return thunk without a name", at, "\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xe9\x00\x00\x00\x00",
			ThunkRetpoline, "rax", "int3", "0xffffffff82204bcf"},
		{"call depth", 0xffffffff82204dc0,
			"\x65\x48\xc1\x3d\x07\x89\x90\x01\x05\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3\xcc",
			ThunkCallDepth, "rax", "int3", "ret"},
		{"call depth, patched out", 0xffffffff82204dc0,
			"\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3\xcc",
			ThunkRetpoline, "rax", "int3", "ret"},
		{"lfence", at, "\x0f\xae\xe8\xff\xe0\xcc\xcc", ThunkLfence, "rax", "", ""},
		{"endbr, lfence", at, "\xf3\x0f\x1e\xfa\x0f\xae\xe8\xff\xe0\xcc", ThunkLfence, "rax", "", ""},
		{"plain", at, "\xff\xe0\xcc\x90\x90", ThunkPlain, "rax", "", ""},
		{"plain r11", at, "\x41\xff\xe3\xcc", ThunkPlain, "r11", "", ""},
		{"its symbol", 0xffffffff822051e0, "\xff\xe0\xcc\xcc", ThunkITS, "rax", "", ""},
		{"its page", 0xffffffffc0100060, "\x41\xff\xe3\xcc\xcc", ThunkITS, "r11", "", ""},
		{"its page, paranoid FineIBT", 0xffffffffc0100061, "\x75\xfd\x41\xff\xe3\xcc", ThunkITS, "r11", "", ""},
		{"its symbol, paranoid FineIBT", 0xffffffff822051de, "\x75\xfd\xff\xe0\xcc", ThunkITS, "rax", "", ""},
		{"jne back is no thunk in the lower half", 0xffffffffc0100041, "\x75\xfd\x41\xff\xe3\xcc", ThunkUnknown, "", "", ""},
		{"jne elsewhere", 0xffffffffc0100061, "\x75\xfc\x41\xff\xe3\xcc", ThunkUnknown, "", "", ""},
		{"lower half is not its", 0xffffffffc0100040, "\x41\xff\xe3\xcc\xcc", ThunkPlain, "r11", "", ""},
		{"jump to its", at, "\xe9\x1b\x06\x00\x00\xcc", ThunkITS, "", "", ""},
		{"mov elsewhere", at, "\xe8\x01\x00\x00\x00\xcc\x48\x89\x44\x24\x08\xc3", ThunkUnknown, "", "", ""},
		{"trap jumps out", at, "\xe8\x02\x00\x00\x00\xeb\x20\x48\x89\x04\x24\xc3", ThunkUnknown, "", "", ""},
		{"call elsewhere", at, "\xe8\x00\x10\x00\x00\xcc\x48\x89\x04\x24\xc3", ThunkUnknown, "", "", ""},
		{"memory", at, "\xff\x20\xcc", ThunkUnknown, "", "", ""},
		{"cut short", at, "\xe8\x01\x00\x00\x00\xcc\x48\x89", ThunkUnknown, "", "", ""},
		{"empty", at, "", ThunkUnknown, "", "", ""},
	} {
		got := NameIndirectThunk([]byte(tt.code), tt.addr, resolve)
		if got.Kind != tt.kind || got.Register != tt.register || got.Capture != tt.capture || got.Return != tt.return_ {
			t.Errorf("%s: got %+v", tt.name, got)
		}
	}
	code := []byte("\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xe9\x91\x0a\x00\x00\x90")
	lines := strings.Join(NameIndirectThunk(code, at, resolve).Lines, "; ")
	if want := "call 1f; int3; 1: mov %rax,(%rsp); jmp srso_return_thunk"; lines != want {
		t.Errorf("lines %q, want %q", lines, want)
	}
}

func TestNameReturnThunk(t *testing.T) {
	for _, tt := range []struct {
		name string
		addr uint64
		code string
		want ReturnKind
	}{
		{"srso", 0xffffffff82205660, "\xe8\xdb\xff\xff\xff\x0f\x0b", ReturnSRSO},
		{"its", 0xffffffff822057e0, "\xc3\xcc", ReturnITS},
		{"retbleed", 0xffffffff822056c0, "\xc3\xcc\x0f\xae\xe8\xeb\xf9", ReturnRetbleed},
		{"call depth", 0xffffffff82205710, "\x65\x48\xc1\x25\x07\x89\x90\x01\x05", ReturnCallDepth},
		{"6.1 plain", 0xffffffff822057f0, "\xc3\xcc\xcc", ReturnPlain},
		{"5.19 untrained", 0xffffffff822057f0, "\xc3\xcc\x0f\xae\xe8\xeb\xf9", ReturnRetbleed},
		{"6.5 srso", 0xffffffff822057f0, "\xe8\x4b\xfe\xff\xff\x0f\x0b", ReturnSRSO},
		{"patched to srso", 0xffffffff822057f0, "\xe9\x6b\xfe\xff\xff", ReturnSRSO},
		{"no name, call depth", 0x1000, "\x65\x48\xc1\x25\x07\x89\x90\x01\x05", ReturnCallDepth},
		{"code", 0x1000, "\x55\x48\x89\xe5\xc3", ReturnUnknown},
		{"empty", 0x1000, "", ReturnUnknown},
	} {
		if got := NameReturnThunk([]byte(tt.code), tt.addr, resolve); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// A table of symbols also names addresses inside of them: the label stays one.
func TestThunkLabel(t *testing.T) {
	inside := func(uint64) (string, bool) { return "__x86_indirect_thunk_rax", false }
	for name, resolve := range map[string]Resolver{"no table": nil, "a table": inside} {
		got := NameIndirectThunk([]byte("\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3\xcc"), at, resolve)
		if lines := strings.Join(got.Lines, "; "); lines != "call 1f; int3; 1: mov %rax,(%rsp); retq" {
			t.Errorf("%s: %s", name, lines)
		}
	}
}
