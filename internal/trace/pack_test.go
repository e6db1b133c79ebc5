package trace

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A packed window is the same when it is unpacked, and the windows of a whole run fit into memory.
func TestPack(t *testing.T) {
	t.Parallel()
	w := &Window{}
	for i := range uint32(3000) {
		w.Addrs = append(w.Addrs, 0xffffffff81000000+uint64(i))
	}
	for i := range uint32(1 << 20) {
		w.Order = append(w.Order, (i*i%7919+i)%3000)
	}
	p, err := w.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Unpack()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, got); diff != "" {
		t.Errorf("window (-want +got):\n%.1000s", diff)
	}
	if p.Size() > 4*len(w.Order) {
		t.Errorf("%d bytes packed of %d", p.Size(), 4*len(w.Order))
	}
	packet := w.Order[:35_000]
	w.Order = nil
	for range 128 {
		w.Order = append(w.Order, packet...)
	}
	if p, err = w.Pack(); err != nil || p.Size() > 4*len(w.Order)/50 {
		t.Errorf("%d bytes packed of %d: %v", p.Size(), 4*len(w.Order), err)
	}
}
