package redirect

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/prog"
)

// ChoosePackets picks those that the chain can send, and that windows for the given bulks can hold equally often: evenly
// over all that there are. leftOut says in words which are not among them; it is empty when all are.
func ChoosePackets(p *prog.Packets, bulks []int) (frames [][]byte, leftOut string, err error) {
	long, parts := 0, []string(nil)
	var fit [][]byte
	for _, frame := range p.Frames {
		switch {
		case len(frame) > MaxPacket:
			long++
		default:
			fit = append(fit, frame)
		}
	}
	if len(fit) == 0 {
		return nil, "", fmt.Errorf("none of %d packets has %d bytes or fewer, which the chain can send", len(p.Frames), MaxPacket)
	}
	n := FitPackets(len(fit), bulks)
	for i := range n {
		frames = append(frames, fit[i*len(fit)/n])
	}
	if p.Seen > n {
		parts = append(parts, fmt.Sprintf("%d of %d packets are sent", n, p.Seen))
	}
	if text := p.LeftOut(); text != "" {
		parts = append(parts, "left out: "+text)
	}
	if long > 0 {
		parts = append(parts, fmt.Sprintf("%d above %d bytes", long, MaxPacket))
	}
	return frames, strings.Join(parts, "; "), nil
}
