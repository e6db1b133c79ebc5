package tax

import (
	"errors"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/kernel"
)

// maxDispatcher bounds how many programs are attached to fill the dispatcher.
// It holds 48 (BPF_DISPATCHER_MAX in include/linux/bpf.h).
const maxDispatcher = 64

const errNoDispatcher = refusal("this kernel has no BPF dispatcher for XDP: every program is called indirectly")

// dispatcher reads the programs that are in the BPF dispatcher for XDP, and how a program
// that is not in it is called. It refuses where there is none.
func dispatcher(k *kernel.Kernel) (programs []uint64, fallback string, err error) {
	programs, fallback, err = k.Dispatcher()
	if errors.Is(err, kernel.ErrNoDispatcher) {
		err = errNoDispatcher
	}
	return programs, fallback, err
}

// needDispatcher refuses pairs that need the BPF dispatcher, before it is filled, where there is none.
func needDispatcher(k *kernel.Kernel) error {
	if err := needJIT(); err != nil {
		return err
	}
	_, _, err := dispatcher(k)
	return err
}

// room is what the BPF dispatcher holds, beside or with a program.
type room struct {
	// in tells that the program is among those that the dispatcher calls directly.
	in bool
	// programs is how many there are.
	programs int
	// fallback is how a program that is not among them is called.
	fallback string
}

// dispatched tells whether a program is in the dispatcher. It refuses where programs
// have no code of their own to recognize them by, and where there is no dispatcher.
func dispatched(k *kernel.Kernel, p *ebpf.Program) (room, error) {
	functions, err := kernel.Program(p)
	if err != nil {
		return room{}, err
	}
	if functions == nil {
		return room{}, errNoJIT
	}
	programs, fallback, err := dispatcher(k)
	return room{kernel.Dispatched(programs, functions[0]), len(programs), fallback}, err
}
