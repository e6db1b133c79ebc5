package xsk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// Socket is bound to one queue of one device. Its rings are for one goroutine
// at a time each; the others may be called from any.
type Socket struct {
	Fill       Fill       // chunks to receive into
	Completion Completion // chunks whose frames were transmitted
	RX         RX         // frames received
	TX         TX         // frames to transmit

	umem    *UMEM
	options Options
	fd      int
	mode    Mode
	whyCopy error
	budget  int
	kicked  kicked
	polled  [1]unix.PollFd // that of wakeTX, which allocates none
}

// Errors of Kick, WakeFill and Wait that are no fault of the caller.
var (
	// ErrDown says that the device is there and not up.
	ErrDown = errors.New("link is down")
	// ErrGone says that the device is not there any more.
	ErrGone = errors.New("device is gone")
	// ErrDropped says that the kernel took one frame from the TX ring and
	// dropped it: its completion comes, but it was not sent. The device was
	// not running or had no carrier.
	ErrDropped = errors.New("kernel dropped a frame")
	// ErrNoProgram says that the driver transmits from a zero-copy socket only
	// while the device has an XDP program, as Intel's do: [Attach] one without
	// sockets, which passes all. What is in the TX ring stays there.
	ErrNoProgram = errors.New("device has no XDP program")
)

// Open binds a socket to a queue. The calling thread must be in the device's
// network namespace. The kernel gives frames to the socket once an XDP program
// does ([Attach]); put chunks into the fill ring first.
//
// In mode Auto it binds without copies where that works, and else with:
// [Socket.WhyCopy] says why. That includes drivers that would cut frames, as igb
// does where a chunk is too small. Where the mode is ZeroCopy, or that of the
// UMEM's other sockets, the error is an [ErrNoZeroCopy] that names the device and
// the cause.
//
// While another socket has the queue Open waits, up to Options.BindWait, and tries
// again. When ctx is done before that it returns ctx's error.
func Open(ctx context.Context, u *UMEM, o Options) (*Socket, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	canceled := func() error {
		return fmt.Errorf("open AF_XDP socket on %s queue %d: %w", deviceName(o.Interface), o.Queue, ctx.Err())
	}
	if ctx.Err() != nil {
		return nil, canceled()
	}
	deadline := time.Now().Add(o.BindWait)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		// A new socket for each try: the kernel keeps what a failed bind began.
		s, err := u.open(o)
		if !errors.Is(err, unix.EBUSY) {
			return s, err
		}
		if time.Now().Add(pause).After(deadline) {
			// Linux gives EBUSY also for zero copy on a device whose memory is somebody
			// else's (dev_get_min_mp_channel_count in net/xdp/xsk_buff_pool.c).
			if o.Mode == Auto {
				if s, errCopy := u.openCopy(o, err); errCopy == nil {
					return s, nil
				}
			}
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, canceled()
		case <-time.After(pause):
		}
	}
}

// open tries to bind a socket once, and adds it to those of the UMEM.
func (u *UMEM) open(o Options) (*Socket, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, fmt.Errorf("open AF_XDP socket: UMEM %w", ErrClosed)
	}
	first := o.Mode
	if first == Auto {
		first = ZeroCopy // the kernel chooses by itself too, and does not say why
	}
	s, err := open(u, o, first)
	if why, ok := errors.AsType[noZeroCopy](err); ok && o.Mode == Auto && !why.shared {
		whyCopy := err
		if s, err = open(u, o, Copy); err == nil {
			s.whyCopy = whyCopy
		}
	}
	if err != nil {
		return nil, err
	}
	if o.Mode == Auto && s.mode == Copy && s.whyCopy == nil {
		s.whyCopy = u.whyCopy()
	}
	u.sockets = append(u.sockets, s)
	return s, nil
}

// openCopy is open in copy mode, for want of zero copy, of a socket that is asked for in mode
// [Auto].
func (u *UMEM) openCopy(o Options, why error) (*Socket, error) {
	asked := o.Mode
	o.Mode = Copy
	s, err := u.open(o)
	if err != nil {
		return nil, err
	}
	s.options.Mode, s.whyCopy = asked, why
	return s, nil
}

// errJoined is why a socket is in copy mode whose UMEM has sockets that were opened in it.
var errJoined = errors.New("the UMEM's other sockets are in copy mode, as was asked for")

// whyCopy is why a socket that joins those of the UMEM in copy mode is in it. u.mu is held.
func (u *UMEM) whyCopy() error {
	for _, s := range u.sockets {
		if s.whyCopy != nil {
			return s.whyCopy
		}
	}
	return errJoined
}

// open binds a socket in the mode of the UMEM's others or, when it is the first, in this one.
func open(u *UMEM, o Options, first Mode) (s *Socket, err error) {
	s = &Socket{umem: u, options: o, fd: -1}
	s.Fill.umem, s.Completion.umem, s.RX.umem, s.TX.umem = u, u, u, u
	defer func() {
		if err != nil {
			err = fmt.Errorf("open AF_XDP socket on %s queue %d: %w", deviceName(o.Interface), o.Queue, err)
			err = errors.Join(err, s.release())
			s = nil
		}
	}()
	if s.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return s, missing(err)
	}
	for _, size := range []struct{ option, entries int }{
		{unix.XDP_UMEM_FILL_RING, o.Fill}, {unix.XDP_UMEM_COMPLETION_RING, o.Completion},
		{unix.XDP_RX_RING, o.RX}, {unix.XDP_TX_RING, o.TX},
	} {
		n := uint32(size.entries)
		if err := setsockopt(s.fd, unix.SOL_XDP, size.option, &n); err != nil {
			return s, fmt.Errorf("make ring of %d entries: %w", n, err)
		}
	}
	if err := s.mapRings(); err != nil {
		return s, fmt.Errorf("map rings: %w", err)
	}
	if err := s.setOptions(); err != nil {
		return s, err
	}
	if err := s.bind(first); err != nil {
		return s, err
	}
	var flags uint32
	if err := getsockopt(s.fd, unix.XDP_OPTIONS, &flags); err != nil {
		return s, fmt.Errorf("read options: %w", err)
	}
	s.mode = Copy
	if flags&unix.XDP_OPTIONS_ZEROCOPY != 0 {
		s.mode = ZeroCopy
	}
	if o.Mode != Auto && o.Mode != s.mode {
		return s, fmt.Errorf("%v mode: the UMEM's other sockets are in %v mode", o.Mode, s.mode)
	}
	return s, nil
}

// OpenAll opens sockets on one UMEM that all are in one mode, as the kernel wants it: where
// one of several devices cannot do without copies and all are asked for in mode [Auto], those
// that are open already are opened again in copy mode, and [Socket.WhyCopy] of each names the
// device that cannot. With [ZeroCopy] that is the error, an [ErrNoZeroCopy]. On an error no
// socket is left open.
func OpenAll(ctx context.Context, u *UMEM, all []Options) (sockets []*Socket, err error) {
	sockets, err = openAll(ctx, u, all)
	auto := !slices.ContainsFunc(all, func(o Options) bool { return o.Mode != Auto })
	if _, busy := errors.AsType[busyZeroCopy](err); !auto || !busy && !errors.Is(err, ErrNoZeroCopy) {
		return sockets, err
	}
	whyCopy := err
	all = slices.Clone(all)
	for i := range all {
		all[i].Mode = Copy
	}
	sockets, err = openAll(ctx, u, all)
	for _, s := range sockets {
		s.whyCopy = whyCopy
	}
	return sockets, err
}

func openAll(ctx context.Context, u *UMEM, all []Options) (sockets []*Socket, err error) {
	for _, o := range all {
		s, err := Open(ctx, u, o)
		if err != nil {
			for _, s := range sockets {
				err = errors.Join(err, s.Close())
			}
			return nil, err
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

// missing names what a kernel lacks that has no AF_XDP for us.
func missing(err error) error {
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT):
		return &feature.Missing{Feature: "AF_XDP", Config: "CONFIG_XDP_SOCKETS", Err: err}
	case errors.Is(err, unix.EPERM):
		return feature.Refused(err, unix.CAP_NET_RAW)
	}
	return err
}

func (s *Socket) mapRings() (err error) {
	var off unix.XDPMmapOffsets
	if err := getsockopt(s.fd, unix.XDP_MMAP_OFFSETS, &off); err != nil {
		return err
	}
	o := s.options
	if s.Fill.ring, err = mapRing[uint64](s.fd, unix.XDP_UMEM_PGOFF_FILL_RING, off.Fr, o.Fill); err != nil {
		return err
	}
	s.Completion.ring, err = mapRing[uint64](s.fd, unix.XDP_UMEM_PGOFF_COMPLETION_RING, off.Cr, o.Completion)
	if err != nil {
		return err
	}
	if s.RX.ring, err = mapRing[Desc](s.fd, unix.XDP_PGOFF_RX_RING, off.Rx, o.RX); err != nil {
		return err
	}
	s.TX.ring, err = mapRing[Desc](s.fd, unix.XDP_PGOFF_TX_RING, off.Tx, o.TX)
	return err
}

func (s *Socket) setOptions() error {
	o := s.options
	budget := uint32(o.TXBudget)
	if budget == 0 {
		budget = uint32(max(o.TX, minTXBudget))
	}
	s.budget = minTXBudget
	switch err := setsockopt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, &budget); {
	case err == nil:
		s.budget = int(budget)
	case o.TXBudget == 0: // it was not asked for
	case errors.Is(err, unix.ENOPROTOOPT):
		return &feature.Missing{Feature: "a TX budget of AF_XDP sockets", Since: "6.18", Err: err}
	default:
		return fmt.Errorf("set TX budget to %d: %w", budget, err)
	}
	if o.BusyPoll == 0 {
		return nil
	}
	for _, option := range []struct {
		name      string
		option, n int
	}{
		{"prefer busy polling", unix.SO_PREFER_BUSY_POLL, 1},
		{"busy polling", unix.SO_BUSY_POLL, int(o.BusyPoll.Microseconds())},
		{"budget of busy polling", unix.SO_BUSY_POLL_BUDGET, o.BusyPollBudget},
	} {
		n := int32(option.n)
		err := setsockopt(s.fd, unix.SOL_SOCKET, option.option, &n)
		if errors.Is(err, unix.ENOPROTOOPT) {
			return &feature.Missing{Feature: option.name, Since: "5.11", Config: "CONFIG_NET_RX_BUSY_POLL", Err: err}
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", option.name, err)
		}
	}
	return nil
}

// bind registers the UMEM or shares the registration of a bound socket. A
// sharing socket must give none of the flags: it inherits them
// (xp_assign_dev_shared in net/xdp/xsk_buff_pool.c). Without one that is bound
// the mode is first.
func (s *Socket) bind(first Mode) error {
	o := s.options
	to := unix.SockaddrXDP{Ifindex: uint32(o.Interface), QueueID: uint32(o.Queue)}
	n := nicOf(o.Interface)
	cut := checkCut(n.driver, n.mtu, s.umem.config)
	for _, other := range s.umem.sockets {
		if cut != nil && other.mode == ZeroCopy {
			return noZeroCopy{fmt.Errorf("bind in zero-copy mode, which the UMEM's other sockets are in: %w", cut), true}
		}
		to.Flags, to.SharedUmemFD = unix.XDP_SHARED_UMEM, uint32(other.fd)
		err := unix.Bind(s.fd, &to)
		if errors.Is(err, unix.EBADF) {
			continue // its device is gone, and the socket unbound
		}
		return s.bindError(err, n, other.mode, true)
	}
	if cut != nil && first == ZeroCopy {
		return noZeroCopy{fmt.Errorf("bind in zero-copy mode: %w", cut), false}
	}
	if err := s.register(); err != nil {
		return err
	}
	to.Flags, to.SharedUmemFD = 0, 0
	switch first {
	case Copy:
		to.Flags |= unix.XDP_COPY
	case ZeroCopy:
		to.Flags |= unix.XDP_ZEROCOPY
	}
	if !o.AlwaysPolling {
		to.Flags |= unix.XDP_USE_NEED_WAKEUP
	}
	if o.MultiBuffer {
		to.Flags |= unix.XDP_USE_SG
	}
	return s.bindError(unix.Bind(s.fd, &to), n, first, false)
}

// bindError says what a bind in a mode failed for.
func (s *Socket) bindError(err error, n nic, mode Mode, shared bool) error {
	o := s.options
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("bind: no such interface: %w", err)
	case errors.Is(err, unix.EINVAL) && n.queues > 0 && o.Queue >= n.queues:
		return fmt.Errorf("bind: no such queue: %s has %d: %w", n.name, n.queues, err)
	case mode == ZeroCopy && !errors.Is(err, unix.EBUSY):
		return n.refusal(err, o, s.umem.config, shared)
	case mode == ZeroCopy && shared:
		return fmt.Errorf("bind: another socket has it: %w", busyZeroCopy{err})
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("bind: another socket has it: %w", err)
	case errors.Is(err, unix.EINVAL) && o.MultiBuffer:
		return fmt.Errorf("bind: no such queue, or no multi-buffer (Linux 6.6): %w", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("bind: no such queue: %w", err)
	}
	return fmt.Errorf("bind: %w", err)
}

// register tells the kernel of the UMEM.
func (s *Socket) register() error {
	u := s.umem
	reg := unix.XDPUmemReg{
		Addr: address(u.mem), Len: u.size, Size: uint32(u.config.FrameSize), Headroom: uint32(u.config.Headroom),
	}
	if u.config.Unaligned {
		reg.Flags |= unix.XDP_UMEM_UNALIGNED_CHUNK_FLAG
	}
	if u.config.TxMetadata {
		reg.Flags |= unix.XDP_UMEM_TX_METADATA_LEN
		reg.Tx_metadata_len = TxMetadataSize
	}
	if u.config.SoftwareChecksum {
		reg.Flags |= unix.XDP_UMEM_TX_SW_CSUM
	}
	err := setsockopt(s.fd, unix.SOL_XDP, unix.XDP_UMEM_REG, &reg)
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return &feature.Missing{Feature: fmt.Sprintf("the right to lock %d KiB of memory", u.size>>10),
			Help: "raise RLIMIT_MEMLOCK (ulimit -l), or use fewer frames", Err: err}
	case errors.Is(err, unix.EINVAL) && u.config.TxMetadata:
		return &feature.Missing{Feature: "TX metadata of AF_XDP", Since: "6.11", Err: err}
	case err != nil:
		return fmt.Errorf("register %d bytes for frames: %w", u.size, err)
	}
	return nil
}

// UMEM is the memory the socket's frames live in.
func (s *Socket) UMEM() *UMEM { return s.umem }

// FD is the socket's file descriptor, to poll it or to put it into an XSKMAP.
func (s *Socket) FD() int { return s.fd }

// Options are those the socket was opened with, defaults filled in.
func (s *Socket) Options() Options { return s.options }

// Mode is the mode in use: Copy or ZeroCopy.
func (s *Socket) Mode() Mode { return s.mode }

// WhyCopy is why a socket that was opened in mode [Auto] is in copy mode, an
// [ErrNoZeroCopy] in general; nil for all others. Of one that joined others in
// copy mode it is their cause.
func (s *Socket) WhyCopy() error { return s.whyCopy }

// TXBudget is how many frames one Kick transmits at most in copy mode.
func (s *Socket) TXBudget() int { return s.budget }

// Kick makes the kernel transmit what is in the TX ring. In copy mode that is
// the call that does the work, for at most [Socket.TXBudget] frames; in
// zero-copy mode it is needed only while the ring's NeedsWakeup is set, and this
// makes no call otherwise. Nor does it while the driver has taken nothing since
// the last call, which it has still to answer, 256 times at most: igb never clears
// NeedsWakeup, and each call writes a register of the device. That frames are
// left, that the device had no room or the kernel no memory is no error: kick
// again. With busy polling it is always a call, which polls the driver, and a second one for a
// driver that left frames in the ring. It returns
// [ErrDropped] when one frame was dropped and others may be left, [ErrDown],
// [ErrGone] or [ErrNoProgram] when none is sent.
func (s *Socket) Kick() error {
	if s.mode == ZeroCopy && !s.options.AlwaysPolling && !s.BusyPolls() && (!s.TX.NeedsWakeup() || s.kicked.waits(&s.TX)) {
		return nil
	}
	s.kicked.calls++
	before := s.TX.consumed()
	switch errno := send(s.fd); errno {
	case 0, unix.EAGAIN, unix.ENOBUFS, unix.EINTR, unix.ENOMEM:
		if s.mode == ZeroCopy && s.BusyPolls() {
			s.wakeTX()
			return nil
		}
		s.kicked.done(&s.TX)
		return nil
	case unix.EBUSY:
		// In copy mode NET_XMIT_DROP: "SKB completed but not sent"
		// (__xsk_generic_xmit in net/xdp/xsk.c).
		if s.mode == Copy {
			s.TX.dropped(before, s.Completion.produced())
			return ErrDropped
		}
		return nil
	default:
		return s.wakeError("kick", errno)
	}
}

// Dropped is the last descriptor of the frame that [Socket.Kick] said was dropped, when it last did, for the goroutine that kicks.
// Until Linux 6.17 the kernel does not say how many frames this call and those before it sent, and it may be one of those that have
// not come back, or have just now. That a frame was dropped is sure.
func (s *Socket) Dropped() Desc { return s.TX.lastDropped }

// wakeTX wakes a driver that has left frames in the TX ring after a busy poll. That runs the NAPI which the socket
// receives by; igb with few queues transmits by another, and a call to send does not wake it for a socket that polls
// busily (xsk_no_wakeup in net/xdp/xsk.c), but poll(2) does (xsk_poll).
func (s *Socket) wakeTX() {
	if s.TX.Pending() == 0 || !s.TX.NeedsWakeup() || s.kicked.waits(&s.TX) {
		return
	}
	s.kicked.done(&s.TX)
	s.kicked.calls++
	s.polled[0] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLOUT}
	unix.Poll(s.polled[:], 0) // the next call of send says what is wrong
}

// BusyPolls says whether [Socket.Kick] and [Socket.WakeFill] poll the driver.
func (s *Socket) BusyPolls() bool { return s.options.BusyPoll > 0 }

// wakeError is failure for a call that a driver answers (ndo_xsk_wakeup). Without a program, or where a queue has no socket while
// the driver sets it up, igb, i40e, ice, ixgbe and mlx5 say EINVAL. igc says ENXIO, as the others did before Linux 5.19, and so does
// the kernel of a device that is gone.
func (s *Socket) wakeError(verb string, errno unix.Errno) error {
	if s.mode == ZeroCopy && (errno == unix.EINVAL || errno == unix.ENXIO && !s.gone()) {
		return fmt.Errorf("%s AF_XDP socket on %s queue %d: %w", verb, deviceName(s.options.Interface), s.options.Queue, ErrNoProgram)
	}
	return s.failure(verb, errno)
}

// Kicks is how many system calls [Socket.Kick] has made. It is for the goroutine that kicks.
func (s *Socket) Kicks() uint64 { return s.kicked.calls }

// kicked is what is known of the last kick in zero-copy mode.
type kicked struct {
	calls uint64
	// asked is set while frames lay in the TX ring at the last one, from the entry at on.
	asked bool
	at    uint32
	left  int // calls that were left out since
}

// maxLeft is how many calls are left out while a driver does not answer: it may have missed
// one while it was reset.
const maxLeft = 256

// waits says whether the driver has still to answer the last kick.
func (k *kicked) waits(tx *TX) bool {
	if !k.asked || tx.consumed() != k.at || k.left == maxLeft {
		return false
	}
	k.left++
	return true
}

// done notes a kick. One of an empty ring the driver does not answer.
func (k *kicked) done(tx *TX) {
	k.at, k.left = tx.consumed(), 0
	k.asked = k.at != tx.own
}

// WakeFill tells a driver that ran out of chunks that the fill ring has some.
// It makes no call while the driver does not wait for one. With busy polling it is
// always a call, which polls the driver in place of an interrupt: call it when nothing
// was received. It returns [ErrDown], [ErrGone] or [ErrNoProgram] when no frames can
// come.
func (s *Socket) WakeFill() error {
	if !s.Fill.NeedsWakeup() && !s.BusyPolls() {
		return nil
	}
	switch errno := receive(s.fd); errno {
	case 0, unix.EAGAIN, unix.EBUSY, unix.ENOBUFS, unix.EINTR:
		return nil
	default:
		return s.wakeError("wake", errno)
	}
}

func (s *Socket) failure(verb string, errno unix.Errno) error {
	switch errno {
	case unix.ENETDOWN:
		// Also what is left behind by a device that went.
		if s.gone() {
			return fmt.Errorf("%s AF_XDP socket: %w", verb, ErrGone)
		}
		return fmt.Errorf("%s AF_XDP socket: %w", verb, ErrDown)
	case unix.ENXIO, unix.ENODEV:
		return fmt.Errorf("%s AF_XDP socket: %w", verb, ErrGone)
	case unix.EBADF:
		return fmt.Errorf("%s AF_XDP socket: %w", verb, ErrClosed)
	}
	return fmt.Errorf("%s AF_XDP socket: %w", verb, errno)
}

// gone says whether the kernel has unbound the socket: such a one says ENXIO.
func (s *Socket) gone() bool { return state(s.fd) == unix.ENXIO }

// Check returns [ErrDown] or [ErrGone] when no frames can come. In copy mode
// nothing else says so while nothing is transmitted. It calls no driver: one that
// is reset says that it is down while the link is not.
func (s *Socket) Check() error {
	switch errno := state(s.fd); errno {
	case unix.ENETDOWN, unix.ENXIO, unix.ENODEV, unix.EBADF:
		return s.failure("check", errno)
	}
	return nil
}

// Wait waits until a frame has been received, or the timeout (in whole ms) has
// passed. It returns [ErrDown] or [ErrGone] when none can come.
func (s *Socket) Wait(timeout time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, int(timeout.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll AF_XDP socket: %w", err)
	}
	if fds[0].Revents&unix.POLLIN != 0 {
		return nil
	}
	// Of a device that went poll says nothing (xsk_poll in net/xdp/xsk.c).
	return s.Check()
}

// Statistics are the kernel's counts since the socket was made (XDP_STATISTICS).
// In copy mode a frame the device had is received, RXDropped or RXRingFull. The
// last three need Linux 5.9.
type Statistics struct {
	RXDropped      uint64 // frames larger than the chunk, or without one
	RXInvalidDescs uint64 // entries of the fill ring that are no chunks
	TXInvalidDescs uint64 // descriptors that were dropped and will not be completed
	RXRingFull     uint64 // frames
	FillRingEmpty  uint64 // times a chunk was wanted and none there; copy mode counts the frame as RXDropped too
	TXRingEmpty    uint64 // times
}

// Statistics reads the kernel's counts. Any goroutine may call it.
func (s *Socket) Statistics() (Statistics, error) {
	s.umem.mu.Lock() // against Close
	defer s.umem.mu.Unlock()
	var k unix.XDPStatistics
	if err := getsockopt(s.fd, unix.XDP_STATISTICS, &k); err != nil {
		return Statistics{}, fmt.Errorf("read AF_XDP statistics: %w", err)
	}
	return Statistics{
		RXDropped: k.Rx_dropped, RXInvalidDescs: k.Rx_invalid_descs, TXInvalidDescs: k.Tx_invalid_descs,
		RXRingFull: k.Rx_ring_full, FillRingEmpty: k.Rx_fill_ring_empty_descs, TXRingEmpty: k.Tx_ring_empty_descs,
	}, nil
}

// Close unbinds the socket and unmaps its rings, after which the kernel does
// not touch chunks that were in them. They do not go back to the UMEM's free
// ones: only the caller knows which they are. It may be called twice.
func (s *Socket) Close() error {
	u := s.umem
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sockets = slices.DeleteFunc(u.sockets, func(other *Socket) bool { return other == s })
	return s.release()
}

// release closes before it unmaps and unmaps always: the kernel holds the queue
// until both are done.
func (s *Socket) release() error {
	var errs []error
	if s.fd >= 0 {
		errs = append(errs, unix.Close(s.fd))
		s.fd = -1
	}
	errs = append(errs, s.Fill.unmap(), s.Completion.unmap(), s.RX.unmap(), s.TX.unmap())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close AF_XDP socket: %w", err)
	}
	return nil
}
