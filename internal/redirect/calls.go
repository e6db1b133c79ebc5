package redirect

import (
	"context"
	"errors"

	"github.com/unthunk/unthunk/internal/bpf/observe"
)

// CallsPerPacket is how often something happens for one redirected packet, between the poll that redirects it and the
// program that ends the chain.
type CallsPerPacket struct {
	// Xmits are calls of ndo_xdp_xmit, Softirqs of the NET_RX softirq's action, Polls NAPI polls of the device
	// redirected to, Redirects hits of the tracepoint xdp_redirect.
	Xmits, Softirqs, Polls, Redirects float64
}

func perPacket(seen observe.Seen, packets uint64) CallsPerPacket {
	each := func(n uint64) float64 { return float64(n) / float64(packets) }
	return CallsPerPacket{each(seen.Calls), each(seen.Softirqs), each(seen.Polls), each(seen.Redirects)}
}

// watch sends one slot while tracepoint programs count. polled is the index of the device whose NAPI polls are counted,
// 0 when none are. It returns what was seen, and how many frames arrived.
func (m *Measurement) watch(ctx context.Context, polled int) (seen observe.Seen, received uint64, err error) {
	o, err := observe.New(observe.Config{Netns: m.chain.namespace.Inode, From: m.chain.tested.Index, Polled: polled})
	if err != nil {
		return seen, 0, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	s, _, err := m.send(ctx)
	if err != nil {
		return seen, 0, err
	}
	seen, err = o.Seen()
	return seen, s.Received, err
}

// CallsPerPacket counts calls in one slot, by tracepoint programs.
func (m *Measurement) CallsPerPacket(ctx context.Context) (CallsPerPacket, error) {
	sink := m.chain.sink.Index
	if v := m.chain.verdicts; v != nil && v.now.Sent > v.now.Redirected { // of the last slot most frames came back
		sink = m.chain.generator.Index
	}
	seen, received, err := m.watch(ctx, sink)
	if err != nil {
		return CallsPerPacket{}, err
	}
	if received == 0 {
		return CallsPerPacket{}, errors.New("count calls: no frame arrived")
	}
	return perPacket(seen, received), nil
}
