package xsk

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// RSS is a device's table that says which queue a flow's frames are received by (receive-side
// scaling), as [OpenRSS] found it.
type RSS struct {
	index int
	own   bool // the table before was that which the kernel makes

	mu             sync.Mutex
	fd             int // a socket of the device's network namespace; -1 when closed
	before, spread []uint32
}

// ErrRSSKept says that a device keeps another table than it had: it refuses that, as one of a user with queues which it has no
// longer, or has another since [RSS.Spread], as somebody has set one, or its driver has.
var ErrRSSKept = errors.New("the device keeps another RSS table than it had")

// maxRSS is how many entries a table may have: those of drivers have 64 to 4096.
const maxRSS = 1 << 16

// SetRSS is [OpenRSS] and [RSS.Spread]. A process that is killed leaves the table as it is then (ethtool -X DEV default), and
// the next takes that for what was before, unless another one has opened the RSS too, and closes it when the first is gone.
func SetRSS(ifindex, queues int) (r *RSS, err error) {
	if r, err = OpenRSS(ifindex, queues); err != nil {
		return nil, err
	}
	if err := r.Spread(); err != nil {
		return nil, errors.Join(err, r.Forget())
	}
	return r, nil
}

// OpenRSS reads the table of a device, which Close gives back, and changes nothing. Spread is to give all flows to the first
// queues. The calling thread must be in the device's network namespace. It returns a [feature.Missing] where the driver has no
// such table, as that of veth.
func OpenRSS(ifindex, queues int) (r *RSS, err error) {
	r = &RSS{index: ifindex}
	if r.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("read RSS of %s: %w", deviceName(ifindex), err)
	}
	if r.before, err = r.read(); errors.Is(err, unix.EOPNOTSUPP) || err == nil && len(r.before) == 0 {
		err = &feature.Missing{Feature: "an RSS table of " + deviceName(ifindex), Help: "its driver chooses queues by itself", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("read RSS of %s: %w", deviceName(ifindex), errors.Join(err, r.Forget()))
	}
	if queues < 1 || queues > len(r.before) {
		err = fmt.Errorf("set RSS of %s: %d queues: its table has %d entries", deviceName(ifindex), queues, len(r.before))
		return nil, errors.Join(err, r.Forget())
	}
	r.own = inTurn(r.before, nicOf(ifindex).queues)
	r.spread = make([]uint32, len(r.before))
	for i := range r.spread {
		r.spread[i] = uint32(i % queues)
	}
	return r, nil
}

// Spread has the device give all flows to its first queues, to each as many entries of its table, until the RSS is closed.
// Nothing else in this package changes a device's settings. Any thread may call it.
func (r *RSS) Spread() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.write(r.spread)
	switch {
	case errors.Is(err, unix.EINVAL):
		err = fmt.Errorf("%d queues: it has fewer: %w", slices.Max(r.spread)+1, err)
	case errors.Is(err, unix.EPERM):
		err = feature.Refused(err, unix.CAP_NET_ADMIN)
	}
	if err != nil {
		return fmt.Errorf("set RSS of %s: %w", deviceName(r.index), err)
	}
	return nil
}

func (r *RSS) read() ([]uint32, error) {
	n, err := rxfhIndir(r.fd, r.index, unix.ETHTOOL_GRXFHINDIR, nil)
	if err != nil {
		return nil, err
	}
	if n > maxRSS {
		return nil, fmt.Errorf("its table has %d entries", n)
	}
	table := make([]uint32, n)
	_, err = rxfhIndir(r.fd, r.index, unix.ETHTOOL_GRXFHINDIR, table)
	return table, err
}

func (r *RSS) write(table []uint32) error {
	_, err := rxfhIndir(r.fd, r.index, unix.ETHTOOL_SRXFHINDIR, table)
	return err
}

// Close gives the device the table back that it had, if it still has that of Spread, of this process or of another. It may be
// called twice, from any thread, and after an error tries again, but for [ErrRSSKept]. That the device is gone is no error, nor
// that it is in another network namespace, where it keeps what there is. Where the table was not that of the kernel, which is all
// queues in turn, the kernel then takes it for a user's, and refuses fewer queues (ethtool -L) until ethtool -X DEV default.
func (r *RSS) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return nil
	}
	err := r.giveBack()
	if err == nil || errors.Is(err, ErrRSSKept) {
		err = errors.Join(err, r.forget())
	}
	if err != nil {
		return fmt.Errorf("give RSS back: %w", err)
	}
	return nil
}

func (r *RSS) giveBack() error {
	now, err := r.read()
	switch {
	case err == nil && !slices.Equal(now, r.spread):
		if slices.Equal(now, r.before) { // as before Spread
			return nil
		}
		return fmt.Errorf("%w: it is another since", ErrRSSKept)
	case err == nil && r.own:
		err = r.write(nil) // also where the device has another number of queues now
	case err == nil:
		err = r.write(r.before)
	}
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: it refuses that: %w", ErrRSSKept, err)
	default:
		return err
	}
}

// Forget is Close for a device that is to keep the table that it has.
func (r *RSS) Forget() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.forget()
}

func (r *RSS) forget() error {
	if r.fd < 0 {
		return nil
	}
	fd := r.fd
	r.fd = -1
	return unix.Close(fd)
}

// inTurn says whether a table has queues in turn, as ethtool_rxfh_indir_default has them (linux/ethtool.h).
func inTurn(table []uint32, queues int) bool {
	for i, queue := range table {
		if queues == 0 || queue != uint32(i%queues) {
			return false
		}
	}
	return true
}
