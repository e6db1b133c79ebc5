package filter

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/traffic"
	"github.com/unthunk/unthunk/xsk"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// frames by name. UDP goes from 192.0.2.1 to 192.0.2.2, port 9 to 9.
func frames(t testing.TB) map[string][]byte {
	udp, err := traffic.UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f []byte, at int, b ...byte) []byte {
		f = append([]byte(nil), f...)
		copy(f[at:], b)
		return f
	}
	tcp := change(udp, 23, 6)
	syn := change(change(tcp, 47, 2), 36, 0x01, 0xbb) // to port 443
	tag := func(f []byte, tci uint16) []byte {
		out := append(append([]byte(nil), f[:12]...), 0x81, 0, 0, 0)
		binary.BigEndian.PutUint16(out[14:], tci)
		return append(out, f[12:]...)
	}
	six := make([]byte, 80)
	copy(six, udp[:12])
	six[12], six[13], six[14], six[20] = 0x86, 0xdd, 0x60, 17
	six[22], six[23], six[37] = 0x20, 1, 1 // 2001::1
	six[38], six[39], six[53] = 0x20, 1, 2
	six[55], six[57] = 53, 54
	arp := change(make([]byte, 60), 0, udp[:12]...)
	arp = change(arp, 12, 8, 6)
	arp = change(arp, 28, 192, 0, 2, 7)
	return map[string][]byte{
		"udp": udp, "tcp": tcp, "syn": syn, "udp6": six, "arp": arp,
		"fragment": change(udp, 20, 0, 100),
		"options":  change(append(append([]byte(nil), udp[:34]...), append(make([]byte, 4), udp[34:]...)...), 14, 0x46),
		"vlan":     tag(udp, 0x2005), "vlan2": tag(tag(udp, 6), 7),
		"short": udp[:14], "cut": udp[:30], "broadcast": change(arp, 0, 255, 255, 255, 255, 255, 255),
	}
}

func TestCompile(t *testing.T) {
	all := frames(t)
	for expression, want := range map[string]string{
		"udp":                          "udp udp6 fragment options cut",
		"not udp":                      "tcp syn arp vlan vlan2 broadcast",
		"ip":                           "udp tcp syn fragment options cut short",
		"ip6":                          "udp6",
		"arp":                          "arp broadcast",
		"tcp":                          "tcp syn",
		"tcp port 443":                 "syn",
		"tcp dst port 443":             "syn",
		"tcp src port 443":             "",
		"port 9":                       "udp tcp syn options",
		"port 53 or 9":                 "udp tcp syn options udp6",
		"udp portrange 50-60":          "udp6",
		"udp src portrange 54-60":      "",
		"host 192.0.2.1":               "udp tcp syn fragment options cut",
		"src host 192.0.2.2":           "",
		"dst 192.0.2.2":                "udp tcp syn fragment options",
		"src net 192.0.2.0/24":         "udp tcp syn fragment options arp broadcast cut",
		"net 192.0.2":                  "udp tcp syn fragment options arp broadcast cut",
		"net 10":                       "",
		"arp host 192.0.2.7":           "arp broadcast",
		"host 2001::1":                 "udp6",
		"ip6 net 2001::/16":            "udp6",
		"dst host 2001::1":             "",
		"ether host 02:00:00:00:00:01": "udp tcp syn udp6 arp fragment options vlan vlan2 short cut broadcast",
		"ether dst 02:00:00:00:00:01":  "",
		"ether broadcast":              "broadcast",
		"ether multicast":              "broadcast",
		"ether proto 0x806":            "arp broadcast",
		"ip proto 17":                  "udp fragment options cut",
		"ip6 proto udp":                "udp6",
		"vlan":                         "vlan vlan2",
		"vlan 5":                       "vlan",
		"vlan and udp":                 "vlan",
		"vlan 6 or vlan 7":             "",
		"vlan 7 and vlan 6 and udp":    "vlan2",
		"tcp[13] & 2 != 0":             "syn",
		"tcp[13]&2!=0":                 "syn",
		"udp[0:2] = 9":                 "udp options",
		"ip[8] > 63":                   "udp tcp syn fragment options cut",
		"ether[0] & 1 = 0 and arp":     "arp",
		"len <= 30":                    "short cut",
		"greater 80":                   "udp6",
		"less 14":                      "short",
		"tcp or udp and ip6":           "udp6",
		"tcp or (udp and ip6)":         "tcp syn udp6",
		"!(tcp||udp) && arp":           "arp broadcast",
		// ip and udp, as tcpdump -ddd writes it.
		"4\n40 0 0 12\n21 0 1 2048\n6 0 0 262144\n6 0 0 0\n": "udp tcp syn fragment options cut short",
	} {
		program, err := Compile(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		vm, err := bpf.NewVM(program)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if _, err := bpf.Assemble(program); err != nil {
			t.Errorf("%s: %v", expression, err)
		}
		matches := " " + want + " "
		for name, f := range all {
			n, err := vm.Run(f)
			if err != nil {
				t.Fatalf("%s: %v", expression, err)
			}
			if got := n > 0; got != strings.Contains(matches, " "+name+" ") {
				t.Errorf("%s: match of %s is %v", expression, name, got)
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, expression := range []string{
		"", " ", "bogus", "tcp and", "and tcp", "(tcp", "tcp)", "tcp udp", "port", "port 70000", "port http", "port 1-2", "portrange 5-1",
		"host example.org", "net 192.0.2.1/24", "net 1.2.3.4.5", "ether", "ether port 5", "icmp port 5", "vlan 5000", "tcp[x] = 1",
		"tcp[1:3] = 1", "tcp[1 = 1", "tcp[1] & = 1", "tcp[1]", "foo[1] = 1", "udp[9999] = 1", "arp host ::1", "ip6 host 192.0.2.1",
		"ip proto 300", "ip proto bogus", "ether proto 70000", "broadcast", "src", "src proto 5", "mpls", "gateway x", "len", "less x",
		"9 1 2 3 4", "1 6 0 0 99999999999", "port 9 or or 5", "tcp | udp", strings.Repeat("(", 200) + "tcp",
		strings.Repeat("tcp and ", 2000) + "tcp",
		"1,65535,0,0,0",
	} {
		program, err := Compile(expression)
		if err == nil {
			t.Errorf("%.40q: no error: %v", expression, program)
		}
	}
	for name, program := range map[string][]bpf.Instruction{
		"nothing":    {},
		"no return":  {bpf.TAX{}},
		"no match":   {bpf.RetConstant{}},
		"far jump":   {bpf.Jump{Skip: 9}, bpf.RetConstant{Val: 1}},
		"extension":  {bpf.LoadExtension{Num: bpf.ExtMark}, bpf.RetA{}},
		"far":        {bpf.LoadAbsolute{Off: 1 << 20, Size: 1}, bpf.RetA{}},
		"by zero":    {bpf.ALUOpConstant{Op: bpf.ALUOpDiv}, bpf.RetA{}},
		"no scratch": {bpf.LoadScratch{N: 16}, bpf.RetA{}},
		"unwritten":  {bpf.LoadScratch{N: 1}, bpf.RetA{}},
		"far shift":  {bpf.LoadMemShift{Off: 0xffff}, bpf.RetA{}},
		"register":   {bpf.LoadConstant{Dst: 9}, bpf.RetA{}},
		"operation":  {bpf.ALUOpX{Op: 0xfff}, bpf.RetA{}},
		"comparison": {bpf.JumpIf{Cond: 99}, bpf.RetA{}},
	} {
		if _, err := Claim(program); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// runner makes an XDP program that returns 1 for frames that match.
func runner(t testing.TB, program []bpf.Instruction) func(frame []byte) bool {
	t.Helper()
	claim, err := Claim(program)
	if err != nil {
		t.Fatalf("%v: %v", program, err)
	}
	ins := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2), asm.Add.Imm(asm.R4, 14), asm.JGT.Reg(asm.R4, asm.R3, xsk.PassLabel),
	}
	ins = append(append(ins, claim...),
		asm.Mov.Imm(asm.R0, 1).WithSymbol(xsk.ClaimLabel), asm.Return(),
		asm.Mov.Imm(asm.R0, 2).WithSymbol(xsk.PassLabel), asm.Return())
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: ins})
	if err != nil {
		t.Fatalf("%v: %+v", program, err)
	}
	t.Cleanup(func() { p.Close() })
	return func(frame []byte) bool {
		code, err := p.Run(&ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256)})
		if err != nil {
			t.Fatal(err)
		}
		return code == 1
	}
}

// An error has no more of a long expression, and of a long word, than one reads.
func TestLongErrors(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1<<20)
	for _, expression := range []string{"udp " + long, "udp port " + long, "ip proto " + long, "host " + long, "ether host " + long,
		"net " + long, long + ">1", "ip[" + long + "] = 1", "ip[1:" + long + "] = 1", strings.Repeat("udp and ", 100) + "prt"} {
		if _, err := Compile(expression); err == nil || len(err.Error()) > 500 {
			t.Errorf("%.40s…: %.600v", expression, err)
		}
	}
}

// The translation agrees with the classic filters of the kernel about every
// expression and frame.
func TestClaimInKernel(t *testing.T) {
	testutil.Root(t)
	all := frames(t)
	for _, expression := range []string{
		"udp", "not udp", "port 9", "udp portrange 50-60", "src net 192.0.2.0/24", "host 2001::1", "ether host 02:00:00:00:00:01",
		"vlan and udp", "tcp[13] & 2 != 0", "greater 80", "ip[8] > 63", "ether broadcast", "len <= 100 and not arp",
	} {
		program, err := Compile(expression)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, expression, program, all)
	}
}

func compare(t testing.TB, name string, program []bpf.Instruction, all map[string][]byte) {
	t.Helper()
	classic, close := socketFilter(t, name, program)
	defer close()
	run := runner(t, program)
	for which, f := range all {
		if len(f) < 15 {
			continue // the kernel's test run wants more than an Ethernet header
		}
		if got, want := run(f), classic(f); got != want {
			t.Errorf("%s: match of %s is %v, and of the classic filter %v", name, which, got, want)
		}
	}
}

// socketFilter makes a pair of sockets whose receiver has the program as its filter
// (SO_ATTACH_FILTER): the kernel runs it on each datagram, and drops what it does not
// match.
func socketFilter(t testing.TB, name string, program []bpf.Instruction) (match func(frame []byte) bool, close func()) {
	t.Helper()
	raw, err := bpf.Assemble(program)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptSockFprog(fds[1], unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
		Len: uint16(len(filter)), Filter: &filter[0],
	}); err != nil {
		t.Fatalf("%s: attach filter: %v", name, err)
	}
	buf := make([]byte, 1<<16)
	match = func(frame []byte) bool {
		if _, err := unix.Write(fds[0], frame); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err := unix.Read(fds[1], buf)
		if err != nil && err != unix.EAGAIN {
			t.Fatalf("%s: %v", name, err)
		}
		return err == nil
	}
	return match, func() { unix.Close(fds[0]); unix.Close(fds[1]) }
}

// Programs of any instructions, too.
func TestRandomClassicInKernel(t *testing.T) {
	testutil.Root(t)
	all := frames(t)
	rng := rand.New(rand.NewPCG(3, 4))
	for n := range 300 {
		program := []bpf.Instruction{bpf.LoadAbsolute{Off: uint32(rng.IntN(60)), Size: 1 << rng.IntN(3)}}
		for i := range 16 { // what is read must have been written
			program = append(program, bpf.StoreScratch{Src: bpf.RegA, N: i})
		}
		length := len(program) + 1 + rng.IntN(20)
		for len(program) < length {
			program = append(program, randomInstruction(rng, length-len(program)))
		}
		program = append(program, bpf.RetA{}, bpf.RetConstant{Val: 1}, bpf.RetConstant{})
		compare(t, fmt.Sprintf("program %d: %v", n, program), program, all)
	}
}

func randomInstruction(rng *rand.Rand, left int) bpf.Instruction {
	val := []uint32{0, 1, 3, 0x7f, 0xffff, 0x80000000, 0xffffffff, rng.Uint32()}[rng.IntN(8)]
	skip := func() uint8 { return uint8(rng.IntN(left + 1)) }
	ops := []bpf.ALUOp{
		bpf.ALUOpAdd, bpf.ALUOpSub, bpf.ALUOpMul, bpf.ALUOpDiv, bpf.ALUOpMod,
		bpf.ALUOpAnd, bpf.ALUOpOr, bpf.ALUOpXor, bpf.ALUOpShiftLeft, bpf.ALUOpShiftRight,
	}
	test := bpf.JumpTest(rng.IntN(8))
	switch rng.IntN(12) {
	case 0:
		return bpf.LoadAbsolute{Off: uint32(rng.IntN(70)), Size: 1 << rng.IntN(3)}
	case 1:
		return bpf.LoadIndirect{Off: uint32(rng.IntN(30)), Size: 1 << rng.IntN(3)}
	case 2:
		return bpf.LoadMemShift{Off: 14}
	case 3:
		return bpf.TAX{}
	case 4:
		return bpf.TXA{}
	case 5:
		return bpf.ALUOpConstant{Op: bpf.ALUOpXor, Val: 0xffffffff} // the classic machine here has no negation
	case 6:
		return bpf.StoreScratch{Src: bpf.RegA, N: rng.IntN(16)}
	case 7:
		return bpf.LoadScratch{Dst: bpf.RegX, N: rng.IntN(16)}
	case 8:
		return bpf.ALUOpX{Op: ops[rng.IntN(8)]} // shifts by X above 31 differ
	case 9:
		op := ops[rng.IntN(len(ops))]
		if op == bpf.ALUOpShiftLeft || op == bpf.ALUOpShiftRight {
			val &= 31
		}
		return bpf.ALUOpConstant{Op: op, Val: val | 1}
	case 10:
		return bpf.JumpIfX{Cond: test, SkipTrue: skip(), SkipFalse: skip()}
	}
	return bpf.JumpIf{Cond: test, Val: val, SkipTrue: skip(), SkipFalse: skip()}
}

// Whatever is typed, it compiles to a program or is an error.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{"tcp port 443 or udp", "vlan 5 and host ::1", "tcp[13] & 2 != 0",
		"4 40 0 0 12 21 0 1 2048 6 0 0 1 6 0 0 0", "!((a"} {
		f.Add(s)
	}
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		program, err := Compile(s)
		if err != nil {
			return
		}
		Claim(program)
		if vm, err := bpf.NewVM(program); err == nil {
			vm.Run(frame)
		}
	})
}
