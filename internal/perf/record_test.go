package perf

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// record is one record of a ring.
func record(kind uint32, misc uint16, words ...uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint16(b, misc)
	b = binary.LittleEndian.AppendUint16(b, uint16(headerSize+8*len(words)))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// sampleOf is a sample at ip with a call chain.
func sampleOf(misc uint16, ip uint64, chain ...uint64) []byte {
	words := append([]uint64{ip, 7<<32 | 6, 1000, 3, 99, uint64(len(chain))}, chain...)
	return record(recordSample, misc, words...)
}

func parseAll(t *testing.T, b []byte) (samples []Sample, counts Counts) {
	t.Helper()
	var p Parser
	if n := p.Parse(b, func(s *Sample) {
		kept := *s
		kept.Chain = slices.Clone(s.Chain)
		samples = append(samples, kept)
	}); n != len(b) {
		t.Errorf("took %d of %d bytes", n, len(b))
	}
	return samples, p.Counts
}

func TestParseSample(t *testing.T) {
	const user = ^uint64(512 - 1) // PERF_CONTEXT_USER
	for _, test := range []struct {
		name   string
		record []byte
		kernel bool
		chain  []uint64
	}{
		{"kernel", sampleOf(1, 10, contextKernel, 10, 20, 30), true, []uint64{10, 20, 30}},
		{"precise address", sampleOf(1, 11, contextKernel, 10, 20), true, []uint64{11, 20}},
		{"user part", sampleOf(1, 10, contextKernel, 10, user, 20), true, []uint64{10}},
		{"nothing unwound", sampleOf(1, 10), true, []uint64{10}},
		{"user mode", sampleOf(2, 10, user, 10), false, nil},
	} {
		samples, counts := parseAll(t, test.record)
		if counts != (Counts{}) || len(samples) != 1 {
			t.Errorf("%s: %d samples, %+v", test.name, len(samples), counts)
			continue
		}
		s := samples[0]
		if s.Kernel != test.kernel || !slices.Equal(s.Chain, test.chain) {
			t.Errorf("%s: kernel %v, chain %v, want %v", test.name, s.Kernel, s.Chain, test.chain)
		}
		if s.PID != 6 || s.TID != 7 || s.Time != 1000 || s.CPU != 3 || s.Period != 99 {
			t.Errorf("%s: %+v", test.name, s)
		}
	}
}

func TestParseCounts(t *testing.T) {
	b := slices.Concat(
		record(recordLost, 0, 1, 5), record(recordLost, 0, 1, 2), record(recordThrottle, 0, 0, 0, 0),
		record(recordLost, 0), // too short
		record(recordSample, 1, 1, 2),
		sampleOf(1, 1, make([]uint64, maxChain+1)...),
		record(99, 0, 1, 2, 3), // not known: skipped
	)
	if _, counts := parseAll(t, b); counts != (Counts{Lost: 7, Throttled: 1, Bad: 3}) {
		t.Errorf("counts %+v", counts)
	}
}

func TestParsePart(t *testing.T) {
	whole := sampleOf(1, 10, contextKernel, 10)
	var p Parser
	n := 0
	for end := range len(whole) {
		if got := p.Parse(whole[:end], func(*Sample) { n++ }); got != 0 {
			t.Errorf("took %d bytes of half a record", got)
		}
	}
	if n != 0 {
		t.Errorf("%d samples of half a record", n)
	}
	if got := p.Parse([]byte{1, 0, 0, 0, 0, 0, 3, 0, 9, 9}, func(*Sample) {}); got != 0 {
		t.Errorf("took %d bytes of a record shorter than its header", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(slices.Concat(sampleOf(1, 10, contextKernel, 10, 20), record(recordLost, 0, 1, 2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Parser
		n := p.Parse(b, func(s *Sample) {
			if len(s.Chain) > maxChain || s.Kernel == (len(s.Chain) == 0) {
				t.Errorf("chain of %d, kernel %v", len(s.Chain), s.Kernel)
			}
		})
		if n < 0 || n > len(b) {
			t.Errorf("took %d of %d bytes", n, len(b))
		}
	})
}

func TestParseList(t *testing.T) {
	for text, want := range map[string][]int{"0": {0}, "0-2": {0, 1, 2}, "0-1,4": {0, 1, 4}} {
		if got, err := ParseCPUs(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "a", "1-", "70000"} {
		if got, err := ParseCPUs(text); err == nil {
			t.Errorf("%q: %v, no error", text, got)
		}
	}
}

func FuzzParseList(f *testing.F) {
	f.Add("0-3,8")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Count(text, ",") > 4 { // each part may be 65536 CPUs
			return
		}
		cpus, err := ParseCPUs(text)
		if err != nil {
			return
		}
		for _, cpu := range cpus {
			if cpu < 0 || cpu > 1<<16-1 {
				t.Fatalf("CPU %d of %q", cpu, text)
			}
		}
	})
}

// On arm64 a sample ends in the link register, without the signature of pointer authentication, or says that it has none.
func TestParseLink(t *testing.T) {
	sample := func(behind ...uint64) []byte {
		return record(recordSample, miscKernel, append([]uint64{10, 7<<32 | 6, 1000, 3, 99, 3, contextKernel, 10, 20}, behind...)...)
	}
	const addr = 0xffff800008123450
	for _, test := range []struct {
		name   string
		record []byte
		link   uint64
		bad    int
	}{
		{"plain", sample(2, addr), addr, 0},
		{"signed", sample(2, addr&^(0x7f<<48|0xff<<56)|0x35<<48), addr, 0},
		{"no registers", sample(0), 0, 0},
		{"cut", sample(2), 0, 1},
		{"nothing", sample(), 0, 1},
	} {
		p, samples := Parser{link: true}, 0
		p.Parse(test.record, func(s *Sample) {
			samples++
			if s.Link != test.link || !slices.Equal(s.Chain, []uint64{10, 20}) {
				t.Errorf("%s: link %#x, chain %v; want %#x", test.name, s.Link, s.Chain, test.link)
			}
		})
		if p.Bad != test.bad || samples != 1-test.bad {
			t.Errorf("%s: %d samples, %+v", test.name, samples, p.Counts)
		}
	}
	var user Parser
	user.link = true
	user.Parse(record(recordSample, 2, 10, 7<<32|6, 1000, 3, 99, 0, 2, addr), func(s *Sample) {
		if s.Link != 0 {
			t.Errorf("in user mode: link %#x", s.Link)
		}
	})
}
