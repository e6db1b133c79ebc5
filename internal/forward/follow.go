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
		text := ""
		if err := f.config.Do(func() error { return f.addQueues(ctx, i) }); err != nil {
			text = err.Error()
		}
		if text != "" && text != f.complained[i] && ctx.Err() == nil {
			f.config.Warn(text)
		}
		f.complained[i] = text
		f.recovering[i].Unlock()
	}
}

// addQueues opens sockets on the queues that a device has more than before, one after the other, and has it give
// flows to them. What fails is tried again by the next call.
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
			return fmt.Errorf("%s has more queues, and they cannot be used: %w", d.Name, err)
		}
		f.events.happen(d.Name, notef(eventQueue, false, "%s has a queue more, %d", d.Name, queue))
	}
	if err := f.spread(ctx, i); err != nil {
		return fmt.Errorf("%s does not give flows to all queues that are used: %w", d.Name, err)
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
// its frames. After an error it may be called again, and goes on with the socket that it opened.
func (f *afxdp) addQueue(ctx context.Context, i, queue int) error {
	port := f.portsOf(i)[queue]
	f.mu.Lock()
	s := f.sockets[port]
	f.mu.Unlock()
	if s == nil {
		var err error
		if s, err = f.openQueue(ctx, port); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if program := f.programs[i]; f.input(i) && program != nil {
		if err := program.Add(s); err != nil {
			return err
		}
		// For drivers that give a new queue none. An object that is loaded anew would lose what is
		// in its maps.
		if f.file == nil {
			if err := program.Replace(f.claim); err != nil {
				return err
			}
		}
	}
	f.devices[i].now = queue + 1
	return nil
}

// openQueue opens the socket of a port that was not there, and gives it to the datapath.
func (f *afxdp) openQueue(ctx context.Context, port int) (*xsk.Socket, error) {
	options := f.options(f.ports[port])
	worker := f.worker(port)
	if _, free := f.path.Worker(worker).Chunks(); free < options.Fill {
		return nil, fmt.Errorf("of the chunks of worker %d only %d are left, and queue %d needs %d", worker, free, options.Queue, options.Fill)
	}
	s, err := xsk.Open(ctx, f.umem, options)
	if err != nil {
		return nil, err
	}
	p := datapath.NewXSK(s)
	if err := f.path.SetPort(port, p); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sockets[port], f.outlets[port], f.used[port] = s, p, true
	return s, nil
}
