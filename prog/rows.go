package prog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/bpf/replay"
)

// row is a row as the harness runs it, or the part of one whose packets are in equally many fragments: a piece of the
// schedule, in groups whose packets take turns.
type row struct {
	name string
	// whole is the number of the row that it is of, share its share of that one's packets.
	whole int
	share float64
	shape shape

	first  int
	count  int
	groups []group
	next   int // group, or turn of a cold packet
	// ns is about how long one run takes, with all around it.
	ns float64
}

type group struct{ first, size int }

// Mismatch counts runs of a row that did not come out as the clean run of their packet.
type Mismatch struct {
	// Runs is how many were looked at; of them Verdicts, Lengths and Bytes are those with another one. Bytes are
	// looked at by [Replay.Check] alone. Lost are those whose packet could not be restored.
	Runs, Verdicts, Lengths, Bytes, Lost uint64
	// First says what the first one was; empty when there was none.
	First string
}

// Wrong is how many runs came out otherwise, counted once for each way.
func (m Mismatch) Wrong() uint64 { return m.Verdicts + m.Lengths + m.Bytes + m.Lost }

// Tolerable tells whether so few runs came out otherwise, 1 of 1000 at most, that the rest still make a number: an
// entry of a map can be busy for a moment.
func (m Mismatch) Tolerable() bool { return float64(m.Wrong()) <= 1e-3*float64(m.Runs) }

// SetRows says what [Replay.Round] measures, and loads the harness.
func (r *Replay) SetRows(rows []Row) (err error) {
	if len(rows) < 1 || len(rows) > MaxRows {
		return fmt.Errorf("%d rows: 1 to %d can be measured", len(rows), MaxRows)
	}
	if err := r.Close(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	var schedule []uint32
	r.rows, r.shapes = nil, nil
	for whole, in := range rows {
		if len(in.Packets) == 0 {
			return fmt.Errorf("row %s: %w", in.Name, errNoPackets)
		}
		for _, packets := range r.parts(in.Packets) {
			made := row{name: in.Name, whole: whole, first: len(schedule), ns: firstGuess, shape: r.shapeOf(packets[0])}
			for _, size := range r.spread(packets, &schedule) {
				made.groups = append(made.groups, group{made.first + made.count, size})
				made.count += size
			}
			made.share = float64(made.count)
			r.rows = append(r.rows, made)
			if !slices.Contains(r.shapes, made.shape) {
				r.shapes = append(r.shapes, made.shape)
			}
		}
	}
	if n := len(r.shapes); r.opts.Device > 0 && n > maxLengths {
		return fmt.Errorf("packets in fragments of %d lengths: with a device %d are possible, as each has calls of its own", n, maxLengths)
	}
	r.wholes = len(rows)
	timed := make([]float64, r.wholes)
	for _, row := range r.rows {
		timed[row.whole] += row.share
	}
	for i := range r.rows {
		r.rows[i].share /= timed[r.rows[i].whole]
	}
	opts := r.kind
	opts.Packets, opts.Schedule, opts.Programs, opts.Windows = r.packets.Frames, schedule, 1+len(r.programs), maxWindows
	opts.Metadata, opts.Walk, opts.Device, opts.Queue = r.opts.Metadata, r.opts.Cold, r.opts.Device, r.opts.Queue
	if r.harness, err = replay.Load(opts); err != nil {
		return err
	}
	if r.null, err = replay.Null(opts); err != nil {
		return err
	}
	r.found = r.noMismatches()
	return r.expect()
}

// noMismatches has room for a count of each row and program.
func (r *Replay) noMismatches() [][]Mismatch {
	found := make([][]Mismatch, r.wholes)
	for i := range found {
		found[i] = make([]Mismatch, len(r.programs))
	}
	return found
}

// shape is what the packets of one call of the harness have in common: how many fragments they are in, and with a device,
// whose driver may let none of these grow, how long they are.
type shape struct{ fragments, length int }

// maxLengths is how many shapes a replay with a device can have: a call takes 24 ms by itself.
const maxLengths = 32

func (r *Replay) shapeOf(packet int) shape {
	n := len(r.packets.Frames[packet])
	s := shape{fragments: r.kind.Fragments(n)}
	if s.fragments > 0 && r.opts.Device > 0 {
		s.length = n
	}
	return s
}

// parts are the packets of a row by their shape, and of each part those that are timed: sorted by what
// comes out of them, then by length. Of a row with too many packets every n-th is taken.
func (r *Replay) parts(packets []int) (parts [][]int) {
	sorted := slices.Clone(packets)
	slices.SortStableFunc(sorted, func(a, b int) int {
		x, y := r.clean[0].Outcomes[a], r.clean[0].Outcomes[b]
		return cmp.Or(cmp.Compare(r.shapeOf(a).fragments, r.shapeOf(b).fragments),
			cmp.Compare(r.shapeOf(a).length, r.shapeOf(b).length), cmp.Compare(x.Verdict, y.Verdict),
			cmp.Compare(x.Length, y.Length), cmp.Compare(len(r.packets.Frames[a]), len(r.packets.Frames[b])))
	})
	if n, most := len(sorted), r.opts.MostTimed(); n > most {
		for i := range most {
			sorted[i] = sorted[i*n/most]
		}
		sorted = sorted[:most]
	}
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && r.shapeOf(sorted[n]) == r.shapeOf(sorted[0]) {
			n++
		}
		parts, sorted = append(parts, sorted[:n]), sorted[n:]
	}
	return parts
}

// expect tells the harness what has to come out: of the null program, which is program 0 there, the packet.
func (r *Replay) expect() error {
	expected := make([]replay.Expect, len(r.packets.Frames))
	for i, frame := range r.packets.Frames {
		expected[i] = replay.Expect{Hash: replay.Hash(frame), Verdict: pass, Length: uint32(len(frame))}
	}
	if err := r.harness.Expect(0, expected); err != nil {
		return err
	}
	for p, clean := range r.clean {
		for i, o := range clean.Outcomes {
			expected[i] = replay.Expect{Hash: o.Hash, Verdict: o.Verdict, Length: uint32(o.Length)}
		}
		if err := r.harness.Expect(1+p, expected); err != nil {
			return err
		}
	}
	return nil
}

const pass = 2 // XDP_PASS

// spread appends sorted packets to the schedule in groups, and returns the sizes of these. They are dealt out, so that all
// groups hold the same mix.
func (r *Replay) spread(sorted []int, schedule *[]uint32) []int {
	size := r.opts.WorkingSet
	switch {
	case r.opts.Cold > 0: // each run has one packet
		size = len(sorted)
	case r.large():
		size = partSize
	}
	count := max(1, (len(sorted)+size/2)/size)
	var sizes []int
	for g := range count {
		size := 0
		for i := g; i < len(sorted); i += count {
			*schedule = append(*schedule, uint32(sorted[i]))
			size++
		}
		sizes = append(sizes, size)
	}
	return sizes
}

// partSize is how many packets of a large working set a window has. Windows of the programs alternate part by part,
// and a row goes through all its parts before one comes again.
const partSize = 256

// large tells whether the working set is more than a window has runs for.
func (r *Replay) large() bool { return r.opts.Cold == 0 && r.opts.WorkingSet > partSize }

// place puts the programs at the sites of the harness, each call one further: where a program is called from
// moves its time by a little, and all take turns there. It returns the site of each, the null program first.
func (r *Replay) place() ([]uint32, error) {
	all := []*ebpf.Program{r.null}
	for i, p := range r.programs {
		all = append(all, cmp.Or(r.fresh[i], p.Loaded))
	}
	sites := make([]uint32, len(all))
	for i, p := range all {
		sites[i] = uint32((i + r.call) % len(all))
		if err := r.harness.Place(int(sites[i]), p); err != nil {
			return nil, err
		}
	}
	r.call++
	return sites, nil
}

// Check runs each packet of each row twice through each program, without timing, and compares bytes as well. It
// returns what differed from the clean runs by row and program. An error says that the harness itself does not
// restore packets.
func (r *Replay) Check(ctx context.Context) ([][]Mismatch, error) {
	sites, err := r.place()
	if err != nil {
		return nil, err
	}
	found := r.noMismatches()
	for i := range r.rows {
		row := &r.rows[i]
		for p := range sites {
			n := uint32(row.count)
			spans, err := r.runWindows(ctx, []replay.Window{{
				Site: sites[p], Program: uint32(p), First: uint32(row.first), Group: n, Warm: n, Timed: n, Bytes: true,
			}}, 0)
			if err != nil {
				return nil, err
			}
			// What a run takes is not known before: an expensive program would take many times its time.
			row.ns = max(row.ns, float64(spans[0].Ns)/float64(n))
			m, err := r.mismatch(spans[0], uint64(2*n))
			switch {
			case err != nil:
				return nil, err
			case p > 0 && m.Lost > 0 && row.shape.fragments > 0 && r.opts.Device > 0:
				return nil, fmt.Errorf("program %s cannot be replayed on device %d: it %w", r.programs[p-1].Name, r.opts.Device, errNoTailroom)
			case p > 0 && m.Lost > 0 && row.shape.fragments > 0:
				return nil, fmt.Errorf("program %s cannot be replayed: it %w", r.programs[p-1].Name, errReleases)
			case p > 0:
				found[row.whole][p-1].add(m)
			case m.Wrong() > 0:
				return nil, fmt.Errorf("the harness does not restore packets: %s", m.First)
			}
		}
	}
	return found, nil
}

var (
	// errReleases is about programs that change which buffers a packet has. Nothing of BPF makes a fragment.
	errReleases = errors.New("releases fragments of a packet or moves bytes between them, and what restores the packet " +
		"in BPF has no helper that makes one")
	// errNoTailroom is about drivers that tell the kernel no size of their fragments (frag_size of the queue's xdp_rxq_info).
	errNoTailroom = errors.New("shortens or moves fragments of a packet, which cannot be restored where the driver lets none grow")
)

// add adds up two counts.
func (m *Mismatch) add(o Mismatch) {
	m.Runs += o.Runs
	m.Verdicts += o.Verdicts
	m.Lengths += o.Lengths
	m.Bytes += o.Bytes
	m.Lost += o.Lost
	m.First = cmp.Or(m.First, o.First)
}

// mismatch reads what differed in one window of the last call.
func (r *Replay) mismatch(s replay.Span, runs uint64) (Mismatch, error) {
	m := Mismatch{
		Runs: runs, Verdicts: uint64(s.Verdicts), Lengths: uint64(s.Lengths), Bytes: uint64(s.Bytes), Lost: uint64(s.Lost),
	}
	d, ok, err := r.harness.Differs()
	if err != nil {
		return m, err
	}
	if ok {
		m.First = describe(d)
	}
	return m, nil
}

// describe says how a packet came out.
func describe(d replay.Differs) string {
	switch {
	case d.Got.Verdict != d.Want.Verdict:
		return fmt.Sprintf("packet %d: %s, and %s when run once", d.Packet+1, Verdict(d.Got.Verdict), Verdict(d.Want.Verdict))
	case d.Got.Length != d.Want.Length:
		return fmt.Sprintf("packet %d: %d bytes, and %d when run once", d.Packet+1, d.Got.Length, d.Want.Length)
	}
	return fmt.Sprintf("packet %d: other bytes than when run once", d.Packet+1)
}

// Verdict names a verdict: "XDP_TX".
func Verdict(v uint32) string {
	names := []string{"XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT"}
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("verdict %d", v)
}

// Mismatches are what differed in all rounds so far, by row and program.
func (r *Replay) Mismatches() [][]Mismatch { return r.found }
