package usercall

import (
	"io"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/testutil"
)

func kinds(t testing.TB) []Kind {
	all := Kinds()
	if all == nil {
		testutil.Missing(t, "amd64")
	}
	return all
}

func (k Kind) String() string {
	if k.Varying {
		return k.Name + "/varying"
	}
	return k.Name + "/fixed"
}

func TestCall(t *testing.T) {
	for _, k := range kinds(t) {
		for _, n := range []int{1, 2, 1000, MaxCalls, MaxCalls + 1} {
			if got, want := k.Call(n), k.Want(n); got != want || want < uint64(min(n, MaxCalls)) {
				t.Errorf("%v: %d calls gave %d, want %d", k, n, got, want)
			}
		}
		if fixed := k.Want(1000) == 1000; fixed == k.Varying {
			t.Errorf("%v: sum of 1000 calls %d", k, k.Want(1000))
		}
		if ns := k.Ns(1000); ns <= 0 || ns > 1e4 {
			t.Errorf("%v: %v ns", k, ns)
		}
	}
}

// What is in memory is what the names say.
func TestCode(t *testing.T) {
	for _, k := range kinds(t) {
		loop, thunk := k.Loop(), k.Thunk()
		var calls []branch.Inst
		for inst := range branch.Decode(loop.Bytes, loop.Addr) {
			if inst.Kind == branch.CallDirect || inst.Kind == branch.CallIndirect {
				calls = append(calls, inst)
			}
			if inst.Kind == branch.Return || inst.Kind == branch.Bad {
				break
			}
		}
		if len(calls) != 1 {
			t.Fatalf("%v: calls %v", k, calls)
		}
		indirect := calls[0].Kind == branch.CallIndirect
		named := branch.NameIndirectThunk(thunk.Bytes, thunk.Addr, nil)
		want := map[string]branch.ThunkKind{
			"retpoline": branch.ThunkRetpoline, "lfence": branch.ThunkLfence,
			"direct": branch.ThunkUnknown, "indirect": branch.ThunkUnknown,
		}[k.Name]
		if indirect != (k.Name == "indirect") || named.Kind != want {
			t.Errorf("%v: %v, thunk %+v", k, calls[0], named)
		}
		if thunk.Addr != 0 && calls[0].Target != thunk.Addr {
			t.Errorf("%v: calls %#x, the thunk is at %#x", k, calls[0].Target, thunk.Addr)
		}
	}
}

// Signals that unwind the stack find it in order, wherever they come.
func TestSignals(t *testing.T) {
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		testutil.Missing(t, "a CPU profile of its own")
	}
	defer pprof.StopCPUProfile()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
				runtime.Stack(buf, true)
			}
		}
	}()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		for _, k := range kinds(t) {
			if k.Call(MaxCalls) != k.Want(MaxCalls) {
				t.Fatalf("%v: a call went astray", k)
			}
		}
	}
	close(stop)
	<-done
}

func BenchmarkCall(b *testing.B) {
	for _, k := range kinds(b) {
		b.Run(k.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.Call(1000)
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/1000, "ns/call")
		})
	}
}
