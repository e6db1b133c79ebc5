package program

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
)

// What a program may change is known of an object, and of the same program when it is live, also where a tail call leads.
func TestEffects(t *testing.T) {
	testutil.Root(t)
	object := testutil.Compile(t, "testdata/effects.bpf.c")
	connections := []string{"bpf_ct_insert_entry", "bpf_xdp_ct_alloc", "bpf_xdp_ct_lookup"}
	for name, want := range map[string]Effects{
		"track": {Stays: connections}, "called": {Stays: connections}, "locked": {}, "sockmap": {Stays: []string{sockmapUpdate}},
		"killer": {Beyond: []string{"bpf_send_signal_task"}}, "signals": {Beyond: []string{"bpf_send_signal", "bpf_send_signal_thread"}},
	} {
		t.Run(name, func(t *testing.T) { // older kernels lack functions of some
			opened := open(t, object+":"+name, Options{})
			live := open(t, fmt.Sprintf("id:%d", idOf(t, opened.Program)), Options{})
			for _, o := range []*Opened{opened, live} {
				got, err := o.Effects(t.Context())
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Errorf("live %t: %v %s", o.Live, err, diff)
				}
			}
		})
	}
}

// Without CAP_SYSLOG what a live program calls cannot be told, be it kfuncs or helpers, and be the program open before.
func TestEffectsHidden(t *testing.T) {
	testutil.Root(t)
	object := testutil.Compile(t, "testdata/effects.bpf.c")
	for _, name := range []string{"locked", "sockmap"} {
		t.Run(name, func(t *testing.T) {
			id := fmt.Sprintf("id:%d", idOf(t, open(t, object+":"+name, Options{}).Program))
			before := open(t, id, Options{})
			target, err := Parse(id)
			if err != nil {
				t.Fatal(err)
			}
			var errs [2]error
			err = testutil.Capable(t, func() error {
				if _, err := ksym.Live(); err == nil {
					return errShown
				}
				_, errs[0] = before.Effects(t.Context())
				live, err := target.open(t.Context(), Options{})
				if err != nil {
					return err
				}
				_, errs[1] = live.Effects(t.Context())
				return live.Close()
			}, unix.CAP_SYS_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN)
			if errors.Is(err, errShown) {
				testutil.Missing(t, "hidden addresses (kernel.kptr_restrict, kernel.perf_event_paranoid)")
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, err := range errs {
				if feature.AsMissing(err) == nil || !strings.Contains(err.Error(), "kernel.kptr_restrict") {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
}

// errShown says that the kernel shows addresses without CAP_SYSLOG: with kptr_restrict 0, to who may trace the kernel
// (kallsyms_show_value in kernel/ksyms_common.c).
var errShown = errors.New("addresses are shown")

// A call by number has the name that the kernel's BTF gives it, whatever the object says; without one it may do all. Three helpers
// are noticed.
func TestEffectsOfInstructions(t *testing.T) {
	t.Parallel()
	kfunc := func(number int64, name string) asm.Instruction {
		call := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: number}
		return call.WithReference(name)
	}
	ofModule := kfunc(1, "bpf_dynptr_size")
	ofModule.Offset = 1
	for _, test := range []struct {
		call asm.Instruction
		want Effects
	}{
		{kfunc(-1, "bpf_dynptr_size"), Effects{}},
		{kfunc(1<<30, "bpf_dynptr_size"), Effects{Beyond: []string{nameless}}},
		{kfunc(1<<33, "bpf_dynptr_size"), Effects{Beyond: []string{nameless}}},
		{kfunc(0, "bpf_dynptr_size"), Effects{Beyond: []string{nameless}}},
		{ofModule, Effects{Beyond: []string{nameless}}},
		{kfunc(-1, ""), Effects{Beyond: []string{nameless}}},
		{kfunc(-1, "bpf_of_a_later_kernel"), Effects{Stays: []string{"bpf_of_a_later_kernel"}}},
		{asm.FnTcpGenSyncookie.Call(), Effects{Stays: []string{genSyncookie}}},
		{asm.FnSendSignal.Call(), Effects{Beyond: []string{"bpf_send_signal"}}},
		{asm.FnSendSignalThread.Call(), Effects{Beyond: []string{"bpf_send_signal_thread"}}},
		{asm.FnFibLookup.Call(), Effects{}},
	} {
		checkCall(t, test.call, test.want)
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		testutil.Missing(t, "BTF")
	}
	for name, want := range map[string]Effects{
		"bpf_dynptr_size": {}, "bpf_send_signal_task": {Beyond: []string{"bpf_send_signal_task"}},
		"bpf_tcp_gen_syncookie": {Stays: []string{"bpf_tcp_gen_syncookie"}},
	} {
		var f *btf.Func
		if err := types.TypeByName(name, &f); err != nil {
			t.Logf("%s: %v", name, err) // an older kernel
			continue
		}
		number, err := types.TypeID(f)
		if err != nil {
			t.Fatal(err)
		}
		checkCall(t, kfunc(int64(number), "bpf_rcu_read_lock"), want)
	}
}

func checkCall(t *testing.T, call asm.Instruction, want Effects) {
	t.Helper()
	o := &Opened{Spec: &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"p": {Instructions: asm.Instructions{call}}}}}
	got, err := o.Effects(t.Context())
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v: %v %s", call, err, diff)
	}
}
