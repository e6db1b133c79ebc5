package release

import "testing"

func TestSeries(t *testing.T) {
	for release, want := range map[string]string{
		"6.12.117+deb13-amd64": "6.12", "6.1.0-56-amd64": "6.1", "7.3-rc1": "7.3", "6.12": "6.12", "": "", "x": "x", "5.": "5.", ".5": ".5",
		"x6.1": "x6.1",
	} {
		if got := Series(release); got != want {
			t.Errorf("series of %q is %q, want %q", release, got, want)
		}
	}
}

// Versions are compared by their numbers. What has none is neither at least nor before any.
func TestCompare(t *testing.T) {
	for _, test := range []struct {
		release, version string
		atLeast, before  bool
	}{
		{"6.9.12", "6.10", false, true},
		{"6.10", "6.10", true, false},
		{"6.10-rc1", "6.10", true, false},
		{"6.1.0-28-amd64", "5.18", true, false},
		{"7.0", "6.10", true, false},
		{"5.19", "6.10", false, true},
		{"10.0", "9.9", true, false},
		{"", "6.10", false, false},
		{"x.y", "6.10", false, false},
		{"-7.3", "6.10", false, false},
		{"6.10", "", false, false},
		{"99999999999999999999.1", "6.10", false, false},
	} {
		if got := AtLeast(test.release, test.version); got != test.atLeast {
			t.Errorf("%q is %s or later: %t", test.release, test.version, got)
		}
		if got := Before(test.release, test.version); got != test.before {
			t.Errorf("%q is older than %s: %t", test.release, test.version, got)
		}
	}
}
