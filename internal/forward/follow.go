package forward

import (
	"context"
	"fmt"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/xsk"
)

// follow takes queues that devices got (ethtool -L) to their workers. Queues that have a socket do
// not go: the kernel refuses that (ethnl_set_channels in net/ethtool/channels.c) until the device
// itself goes, and what comes back in its place may have fewer.
func (f *afxdp) follow(ctx context.Context) {
	for i := range f.devices {
		if !f.recovering[i].TryLock() {
			continue // it was lost
		}
		if err := f.config.Do(func() error { return f.addQueues(ctx, i) }); err != nil && ctx.Err() == nil {
			f.mu.Lock()
			text := err.Error()
			said := f.complained[i] == text
			f.complained[i] = text
			f.mu.Unlock()
			if !said {
				f.config.Warn(fmt.Sprintf("%s has more queues, and they cannot be used: %v", f.devices[i].Name, err))
			}
		}
		f.recovering[i].Unlock()
	}
}

// addQueues opens sockets on the queues that a device has more than before, one after the other.
func (f *afxdp) addQueues(ctx context.Context, i int) error {
	f.mu.Lock()
	d, away := f.devices[i], f.lost[i] || f.away[i]
	f.mu.Unlock()
	if away {
		return nil
	}
	q := f.config.queues(d.Name)
	if sending := min(q.sending, d.most); sending != d.sending {
		defer f.setSending(i, sending)
	}
	for queue := d.now; queue < min(q.now, d.most); queue++ {
		if err := f.addQueue(ctx, i, queue); err != nil {
			return err
		}
		f.config.Warn(fmt.Sprintf("%s has a queue more, %d", d.Name, queue))
	}
	return nil
}

// setSending sets how many queues of a device transmit.
func (f *afxdp) setSending(i, sending int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.devices[i].sending = min(sending, f.devices[i].now)
	f.route()
}

// addQueue opens a socket on the next queue of a device, has the datapath fill it, and gives it
// its frames.
func (f *afxdp) addQueue(ctx context.Context, i, queue int) error {
	port := f.portsOf(i)[queue]
	options := f.options(f.ports[port])
	if _, free := f.path.Worker(f.worker(port)).Chunks(); free < options.Fill {
		return fmt.Errorf("of the chunks of worker %d only %d are left, and queue %d needs %d", f.worker(port), free, queue, options.Fill)
	}
	s, err := xsk.Open(ctx, f.umem, options)
	if err != nil {
		return err
	}
	p := datapath.NewXSK(s)
	if err := f.path.SetPort(port, p); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sockets[port], f.outlets[port] = s, p
	f.devices[i].now = queue + 1
	program := f.programs[i]
	if !f.input(i) || program == nil {
		return nil
	}
	if err := program.Add(s); err != nil || f.config.Object != "" {
		return err // an object that is loaded anew would lose what is in its maps
	}
	return program.Replace(f.claim) // for drivers that give a new queue none
}
