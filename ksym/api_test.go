package ksym_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/ksym"
)

const kallsyms = `ffffffff81000000 T _text
ffffffff81001000 T xdp_do_redirect
ffffffff81001000 T redirect_alias
ffffffff81001400 t bq_enqueue
ffffffff81001600 T end
ffffffff82000000 d bq_enqueue
ffffffffc0000000 t veth_poll	[veth]
ffffffffc0000800 t veth_xmit	[veth]
`

func ExampleParse() {
	table, err := ksym.Parse(strings.NewReader(kallsyms))
	if err != nil {
		fmt.Println(err)
		return
	}
	s, _ := table.Lookup("xdp_do_redirect")
	fmt.Printf("%s at %#x, %d bytes\n", s.Name, s.Addr, s.Size)
	// Output: xdp_do_redirect at 0xffffffff81001000, 1024 bytes
}

func ExampleTable_Find() {
	table, err := ksym.Parse(strings.NewReader(kallsyms))
	if err != nil {
		fmt.Println(err)
		return
	}
	s, offset, ok := table.Find(0xffffffffc0000010)
	fmt.Printf("%s+%#x [%s] %v\n", s.Name, offset, s.Module, ok)
	// Output: veth_poll+0x10 [veth] true
}

// A table, from text to what its user asks of it.
func TestTable(t *testing.T) {
	t.Parallel()
	table, err := ksym.Parse(strings.NewReader(kallsyms))
	if err != nil {
		t.Fatal(err)
	}
	if table.Len() != 8 {
		t.Errorf("%d symbols, want 8", table.Len())
	}
	if s, ok := table.Lookup("bq_enqueue"); !ok || !s.Text() || s.Addr != 0xffffffff81001400 {
		t.Errorf("Lookup found %+v, want the function", s)
	}
	if n := len(table.All("bq_enqueue")); n != 2 {
		t.Errorf("%d symbols bq_enqueue, want 2", n)
	}
	if n := len(table.At(0xffffffff81001000)); n != 2 {
		t.Errorf("%d symbols at one address, want 2", n)
	}
	want := []ksym.Symbol{
		{Addr: 0xffffffffc0000000, Size: 0x800, Type: 't', Name: "veth_poll", Module: "veth"},
		{Addr: 0xffffffffc0000800, Type: 't', Name: "veth_xmit", Module: "veth"},
	}
	if diff := cmp.Diff(want, table.Module("veth")); diff != "" {
		t.Errorf("module veth (-want +got):\n%s", diff)
	}
	if s, _, ok := table.Find(1); ok {
		t.Errorf("found %+v below all symbols", s)
	}
	again, err := ksym.New(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, again.Module("veth")); diff != "" {
		t.Errorf("table of symbols (-want +got):\n%s", diff)
	}
}

// A kernel that hides its addresses is one that lacks something by name.
func TestHidden(t *testing.T) {
	t.Parallel()
	_, err := ksym.Parse(strings.NewReader("0000000000000000 T _text\n"))
	if feature.AsMissing(err) == nil {
		t.Errorf("%v is not a feature.Missing", err)
	}
}
