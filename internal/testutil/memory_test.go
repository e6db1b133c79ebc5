package testutil

import "testing"

func TestAllocates(t *testing.T) {
	var kept []byte
	for _, test := range []struct {
		bytes, limit int
		fails        bool
	}{{1 << 20, 2 << 20, false}, {8 << 20, 1 << 20, true}} {
		r := record(func(tb testing.TB) {
			Allocates(tb, uint64(test.limit), func() {
				for range 4 { // what is freed counts
					kept = make([]byte, test.bytes/4)
				}
			})
		})
		if (r.failed != "") != test.fails {
			t.Errorf("%d bytes of at most %d: %+v", test.bytes, test.limit, r)
		}
	}
	_ = kept
}
