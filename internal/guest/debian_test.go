package guest

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// madison is what apt-cache says of packages, with some that are no kernels.
const madison = `linux-image-6.12.90+deb12-amd64 | 6.12.90-2~bpo12+1 | http://mirror.test/debian bookworm-backports/main amd64 Packages
linux-image-6.12.117+deb13-cloud-amd64 | 6.12.117-1 | http://mirror.test/debian trixie/main amd64 Packages
linux-image-6.12.118+deb13-cloud-amd64 | 6.12.118-2 | http://mirror.test/debian-security trixie-security/main amd64 Packages
linux-image-6.12.118+deb13-cloud-amd64 | 6.12.118-1 | http://mirror.test/debian trixie/main amd64 Packages
linux-image-6.1.0-9-amd64 | 6.1.27-1 | http://mirror.test/debian bookworm/main amd64 Packages
linux-image-6.1.0-57-amd64 | 6.1.192-3 | http://mirror.test/debian-security bookworm-security/main amd64 Packages
linux-image-6.1.0-0.deb11.52-amd64 | 6.1.180-1~deb11u1 | http://mirror.test/debian-security bullseye-security/main amd64 Packages
linux-image-7.2.13+deb14-amd64 |   7.2.13-1 | http://mirror.test/debian sid/main amd64 Packages
linux-image-7.2.12+deb14-amd64 |   7.2.12-1 | http://mirror.test/debian forky/main amd64 Packages
linux-image-7.2.12+deb14-amd64 |   7.2.12-1 | http://mirror.test/debian sid/main amd64 Packages
linux-image-7.3-amd64 | 7.3~rc7-1~exp1 | http://mirror.test/debian experimental/main amd64 Packages
linux-image-7.3.4+deb13-amd64 | 7.3.4-1~bpo13+1 | http://mirror.test/debian trixie-backports/main amd64 Packages
linux-image-7.3.4+deb13-rt-amd64 | 7.3.4-1~bpo13+1 | http://mirror.test/debian trixie-backports/main amd64 Packages
linux-image-7.3.4+deb13-amd64-unsigned | 7.3.4-1 | http://mirror.test/debian trixie-backports/main amd64 Packages
linux-image-7.3.4+deb13-amd64-dbg | 7.3.4-1 | http://mirror.test/debian trixie-backports/main amd64 Packages
linux-image-6.12.117+deb13-cloud-arm64 | 6.12.117-1 | http://mirror.test/debian trixie/main arm64 Packages
linux-image-7.2.13+deb14-arm64 | 7.2.13-1 | http://mirror.test/debian sid/main arm64 Packages
nonsense
a | b | c
`

// A name means the newest kernel of a series, of a version or of a suite.
func TestOffers(t *testing.T) {
	t.Parallel()
	offers := parseOffers(madison)
	if len(offers) != 12 || !slices.IsSortedFunc(offers, func(a, b Offer) int { return slices.Compare(numbers(a.Name), numbers(b.Name)) }) {
		t.Errorf("%d offers: %v", len(offers), offers)
	}
	for name, want := range map[string]string{
		"6.1":                        "6.1.0-57 6.1.192-3 bookworm-security in 6.1-full",
		"6.1.0-9":                    "6.1.0-9 6.1.27-1 bookworm in debian-6.1.0-9",
		"6.1.0-9-amd64":              "6.1.0-9 6.1.27-1 bookworm in debian-6.1.0-9",
		"6.12":                       "6.12.90+deb12 6.12.90-2~bpo12+1 bookworm-backports in 6.12-full",
		"6.12-cloud":                 "6.12.118+deb13-cloud 6.12.118-2 trixie-security in 6.12",
		"6.12.117-cloud":             "6.12.117+deb13-cloud 6.12.117-1 trixie in debian-6.12.117-cloud",
		"6.12.117+deb13-cloud-amd64": "6.12.117+deb13-cloud 6.12.117-1 trixie in debian-6.12.117+deb13-cloud",
		"6.12-cloud-arm64":           "6.12.117+deb13-cloud-arm64 6.12.117-1 trixie in 6.12-arm64",
		"sid-arm64":                  "7.2.13+deb14-arm64 7.2.13-1 sid in -full-arm64",
		"6.1-arm64":                  "",
		"7.2":                        "7.2.13+deb14 7.2.13-1 sid in 7.2-full",
		"7.3":                        "7.3.4+deb13 7.3.4-1~bpo13+1 trixie-backports in 7.3-full",
		"unstable":                   "7.2.13+deb14 7.2.13-1 sid in -full",
		"testing":                    "7.2.12+deb14 7.2.12-1 forky sid in -full",
		"sid":                        "7.2.13+deb14 7.2.13-1 sid in -full",
		"stable-cloud":               "6.12.118+deb13-cloud 6.12.118-2 trixie-security in ",
		"bookworm":                   "6.1.0-57 6.1.192-3 bookworm-security in -full",
		"experimental":               "7.3 7.3~rc7-1~exp1 experimental in -full",
		"6.1-cloud":                  "",
		"6":                          "not debian:VERSION",
		"":                           "not debian:VERSION",
		"6.1;rm":                     "not debian:VERSION",
		"../x":                       "not debian:VERSION",
		"buster":                     "the suite is none of",
	} {
		w, err := parseWant(name)
		if err != nil {
			if want == "" || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
			continue
		}
		of := slices.DeleteFunc(slices.Clone(offers), func(o Offer) bool { return !w.has(o) })
		if len(of) == 0 {
			if want != "" {
				t.Errorf("%s: nothing, want %q", name, want)
			}
			continue
		}
		o := slices.MaxFunc(of, newer)
		got := strings.TrimPrefix(o.Name, debianPrefix) + " " + o.Version + " " + strings.Join(o.Suites, " ") + " in " + w.folder()
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// A kernel that comes in parts is one where all of them are there; those of others are not its.
func TestWhole(t *testing.T) {
	t.Parallel()
	const control = `Package: linux-image-7.2.13+deb14-amd64
Depends: dracut | linux-initramfs-tool, kmod, linux-base (>= 4.3~), linux-base-7.2.13+deb14-amd64 (= 7.2.13-1), ` +
		`linux-binary-7.2.13+deb14-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-cloud-amd64
Recommends: linux-modules-extra-7.2.13+deb14-amd64

Package: linux-image-7.2.12+deb14-amd64
Depends: linux-binary-7.2.12+deb14-amd64, linux-modules-7.2.12+deb14-amd64

Package: linux-image-6.12.90+deb12-amd64
Depends: kmod, linux-base-6.12.90+deb12-amd64
`
	parts := partsOf(control)
	if len(parts) != 3 || len(parts["linux-image-7.2.13+deb14-amd64"]) != 3 {
		t.Errorf("%v", parts)
	}
	names := []string{"linux-binary-7.2.13+deb14-amd64", "linux-modules-7.2.13+deb14-amd64", "linux-binary-7.2.12+deb14-amd64"}
	var got []string
	for _, o := range whole(parseOffers(madison), parts, names) {
		if o.Arch == AMD64 && strings.HasPrefix(o.Name, "debian:7.2.1") || strings.HasPrefix(o.Name, "debian:6.12.90") {
			got = append(got, o.Name+": "+strings.Join(slices.Sorted(maps.Keys(o.parts)), " "))
		}
	}
	want := []string{"debian:6.12.90+deb12: ", "debian:7.2.13+deb14: linux-binary-7.2.13+deb14-amd64 linux-modules-7.2.13+deb14-amd64"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// FuzzOffers feeds parseOffers what apt does not say: names are those that parseWant takes.
func FuzzOffers(f *testing.F) {
	f.Add(madison)
	f.Fuzz(func(t *testing.T, text string) {
		testutil.Allocates(t, 1<<20+uint64(256*len(text)), func() {
			partsOf(text)
			for _, o := range parseOffers(text) {
				w, err := parseWant(strings.TrimPrefix(o.Name, debianPrefix))
				if err != nil || !w.has(o) {
					t.Errorf("%+v: %v", o, err)
				}
			}
		})
	})
}

// All series are those of one architecture and flavor, each once.
func TestEachSeries(t *testing.T) {
	t.Parallel()
	offers := parseOffers(madison)
	for _, test := range []struct {
		want  want
		names string
	}{
		{want{arch: AMD64}, "6.1 6.12 7.2 7.3"},
		{want{arch: AMD64, cloud: true}, "6.12-cloud"},
		{want{arch: ARM64, cloud: true}, "6.12-cloud-arm64"},
		{want{arch: "riscv64"}, ""},
	} {
		names := test.want.eachSeries(offers)
		if got := strings.ReplaceAll(strings.Join(names, " "), debianPrefix, ""); hostArch() == AMD64 && got != test.names {
			t.Errorf("all series of %+v: %s, want %s", test.want, got, test.names)
		}
	}
	for _, name := range []string{"debian:6.12-cloud", "vmlinuz", "debian:allx", "debian:all_cloud"} {
		if got, err := EachSeries(t.Context(), "", name); err != nil || !slices.Equal(got, []string{name}) {
			t.Errorf("all series of %s: %v, %v", name, got, err)
		}
	}
}
