package price

import (
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// Both programs of a pair do the same work and come to the same result.
func TestPairs(t *testing.T) {
	testutil.Root(t)
	const turns, value = 256, 7
	for _, test := range []struct {
		with, without string
		turns, sum    uint64
	}{
		{"array_unknown", "array_known", turns, turns * value},
		{"hash_unknown", "hash_known", turns, turns * value},
		{"lpm_unknown", "lpm_known", turns, turns * value},
		{"lpm_known", "lpm_known", turns, turns * value},
		// MAX_TAIL_CALL_CNT is 33; the first program is not jumped to.
		{"tail_variable", "tail_constant", 33, 34 * value},
		{"for_each", "loop_inlined", turns, turns * value},
		{"loop_called", "loop_inlined", turns, turns * value},
		{"helper_called", "helper_spared", turns, turns * 64},
	} {
		t.Run(test.with, func(t *testing.T) {
			p, err := LoadPair([2]string{test.with, test.without})
			if err != nil {
				testutil.SkipMissing(t, err)
				t.Fatal(err)
			}
			defer p.Close()
			for i := range p.Programs {
				for range 2 { // a second run starts from zero
					run, err := p.Run(i)
					if err != nil {
						t.Fatal(err)
					}
					if run.Turns != test.turns || run.Sum != test.sum || run.Ns == 0 {
						t.Errorf("program %d: %+v, want %d turns and %d", i, run, test.turns, test.sum)
					}
				}
			}
		})
	}
}

func TestLoad(t *testing.T) {
	testutil.Root(t)
	for _, name := range []string{"nothing", "reference", "second", "observer"} {
		p, err := Load(name)
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		p.Close()
	}
	if _, err := Load("no-such"); err == nil {
		t.Error("loaded")
	}
	if _, err := LoadPair([2]string{"lpm_known", "no-such"}); err == nil {
		t.Error("loaded")
	}
}
