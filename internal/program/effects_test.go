package program

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

// What a program may change is known of an object, and of the same program when it is live, also where a tail call leads.
func TestEffects(t *testing.T) {
	testutil.Root(t)
	object := compileFile(t, "testdata/effects.bpf.c")
	connections := []string{"bpf_ct_insert_entry", "bpf_xdp_ct_alloc", "bpf_xdp_ct_lookup"}
	for name, want := range map[string]Effects{
		"track": {Stays: connections}, "called": {Stays: connections}, "locked": {}, "sockmap": {Stays: []string{sockets}},
		"killer": {Beyond: []string{"bpf_send_signal_task"}},
	} {
		opened := open(t, object+":"+name, Options{})
		live := open(t, fmt.Sprintf("id:%d", idOf(t, opened.Program)), Options{})
		for _, o := range []*Opened{opened, live} {
			got, err := o.Effects(t.Context())
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%s, live %t: %v %s", name, o.Live, err, diff)
			}
		}
	}
}

// Without CAP_SYSLOG kfuncs of a live program have no name, and any may change what stays.
func TestEffectsUnnamed(t *testing.T) {
	testutil.Root(t)
	opened := open(t, compileFile(t, "testdata/effects.bpf.c")+":locked", Options{})
	live := open(t, fmt.Sprintf("id:%d", idOf(t, opened.Program)), Options{})
	err := testutil.Capable(t, func() error {
		got, err := live.Effects(t.Context())
		if diff := cmp.Diff(Effects{Stays: []string{unnamed}}, got); diff != "" {
			return errors.Join(err, errors.New(diff))
		}
		return err
	}, unix.CAP_SYS_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN)
	if err != nil {
		t.Error(err)
	}
}

// A call by number has no name, whatever the object says, and one helper is noticed.
func TestEffectsOfInstructions(t *testing.T) {
	t.Parallel()
	kfunc := func(number int64, name string) asm.Instruction {
		call := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: number}
		return call.WithReference(name)
	}
	for _, test := range []struct {
		call asm.Instruction
		want []string
	}{
		{kfunc(-1, "bpf_dynptr_size"), nil},
		{kfunc(71234, "bpf_dynptr_size"), []string{unnamed}},
		{kfunc(-1, ""), []string{unnamed}},
		{kfunc(-1, "bpf_of_a_later_kernel"), []string{"bpf_of_a_later_kernel"}},
		{asm.FnTcpGenSyncookie.Call(), []string{gen}},
		{asm.FnFibLookup.Call(), nil},
	} {
		o := &Opened{Spec: &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"p": {Instructions: asm.Instructions{test.call}}}}}
		got, err := o.Effects(t.Context())
		if diff := cmp.Diff(Effects{Stays: test.want}, got); diff != "" || err != nil {
			t.Errorf("%v: %v %s", test.call, err, diff)
		}
	}
}
