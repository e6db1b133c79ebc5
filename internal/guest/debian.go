package guest

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/pkgfile"
)

// Offer is a kernel of Debian's archive.
type Offer struct {
	// Name is what [Resolve] takes: debian:6.12.118+deb13-cloud, with "-arm64" behind it for one of arm64 on another machine.
	Name string
	// Series is the first two numbers of its version, with -cloud for Debian's small kernel for
	// virtual machines, and with -arm64.
	Series string
	// Version is that of its package.
	Version string
	// Suites are the parts of the archive that hold it.
	Suites []string
	// Newest is set for the newest of its series: debian:6.12-cloud names it, too.
	Newest bool
	// Arch is its architecture.
	Arch string
	// Cached is the release that the cache holds under this name, CachedSeries what it holds of the
	// series, an older one, it may be, where this is its newest. Empty where there is none.
	Cached, CachedSeries string
	pkg                  string
	// parts are the other packages that it comes in: from Linux 6.19 on Debian has the image
	// and the modules apart.
	parts map[string]bool
}

// suites of Debian's archive that have kernels. Security updates are a suite of their own; what
// the archive does not have, or this machine's apt has no key for, is left out.
var suites = []string{"bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid", "experimental"}

// aliases are other names of suites. They move with each release of Debian.
var aliases = map[string]string{"unstable": "sid", "testing": "forky", "stable": "trixie", "stable-backports": "trixie-backports",
	"oldstable": "bookworm", "oldstable-backports": "bookworm-backports", "oldoldstable": "bullseye"}

// Fetch returns Debian's newest cloud kernel of a series ("6.1") and downloads
// it when dir does not hold one of that series yet. It takes apt's package
// sources of this machine, in all of Debian's [suites] whatever is installed, and an
// apt state of its own inside dir, so that it needs no root and changes
// nothing here. Where apt has no Debian source or no such kernel it returns a
// [feature.Missing].
func Fetch(ctx context.Context, dir, series string) (Kernel, error) {
	return debian(ctx, dir, series+cloud)
}

const cloud = "-cloud"

// everySeries is what a name has in place of a series to mean all of them, anySeries one that stands for it.
const (
	everySeries = "all"
	anySeries   = "0.0"
)

// EachSeries are the names of Debian's newest kernel of each series, the oldest first, where name is debian:all, with -cloud,
// -arm64 and the like behind it as [Resolve] takes them; any other name is returned alone. dir is the cache.
func EachSeries(ctx context.Context, dir, name string) ([]string, error) {
	rest, ok := strings.CutPrefix(name, debianPrefix+everySeries)
	if !ok {
		return []string{name}, nil
	}
	w, err := parseWant(anySeries + rest)
	if err != nil || w.version != anySeries {
		return []string{name}, nil // which Resolve refuses
	}
	_, offers, err := offered(ctx, dir, w.arch)
	if err != nil {
		return nil, err
	}
	names := w.eachSeries(offers)
	if len(names) == 0 {
		return nil, &feature.Missing{Feature: "a kernel of " + name, Help: "unthunk lab --list debian names the series that there are"}
	}
	return names, nil
}

// eachSeries are the names of the series of offers that are wanted, whatever the version.
func (w want) eachSeries(offers []Offer) (names []string) {
	for _, o := range offers {
		name := debianPrefix + o.Series
		isCloud := strings.HasSuffix(strings.TrimSuffix(o.Series, archSuffix(o.Arch)), cloud)
		if o.Arch == w.arch && isCloud == w.cloud && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// debian is the newest kernel of a series, "6.12" or "6.12-cloud", one of a version,
// "6.12.118+deb13-cloud", or the newest of a suite, "unstable-cloud".
func debian(ctx context.Context, dir, name string) (Kernel, error) {
	want, err := parseWant(name)
	if err != nil {
		return Kernel{}, fmt.Errorf("find kernel debian:%s: %w", name, err)
	}
	if want.suite == "" { // a suite moves on, what was downloaded of a series stays
		k, err := cached{filepath.Join(dir, want.folder())}.kernel(ctx, want.arch)
		if !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
	}
	a, offers, err := offered(ctx, dir, want.arch)
	if err != nil {
		return Kernel{}, err
	}
	offers = slices.DeleteFunc(offers, func(o Offer) bool { return !want.has(o) })
	if len(offers) == 0 {
		return Kernel{}, &feature.Missing{Feature: "guest kernel " + name, Help: "unthunk lab --list debian names those that there are"}
	}
	newest := slices.MaxFunc(offers, newer)
	folder := want.folder()
	if want.suite != "" {
		folder = folderOf(newest)
	}
	c := cached{filepath.Join(dir, folder)}
	k, err := c.kernel(ctx, want.arch)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	return c.fillKernel(ctx, want.arch, func(debs string) ([]pkgfile.Package, error) {
		paths, err := a.download(ctx, newest, debs)
		return files(paths), err
	})
}

// kernel is what the folder holds; see [cached.verify] for its errors. One of another architecture than arch, if that is not empty,
// is as good as none: an older unthunk on arm64 named its folders as those of amd64 are named now.
func (c cached) kernel(ctx context.Context, arch string) (Kernel, error) {
	if err := c.verify(ctx); err != nil {
		return Kernel{}, err
	}
	k, ok, err := unpacked(ctx, c.root())
	switch {
	case err != nil:
		return Kernel{}, err
	case !ok:
		return Kernel{}, errNoKernelIn(c.root())
	case arch != "" && k.Arch != arch:
		return Kernel{}, fs.ErrNotExist
	}
	return k, k.readConfig(ctx)
}

// fillKernel makes the folder of a kernel's packages, of the architecture arch if that is not empty.
func (c cached) fillKernel(
	ctx context.Context, arch string, download func(dir string) ([]pkgfile.Package, error),
) (Kernel, error) {
	err := c.fill(ctx, download, func(root string) error {
		root, err := filepath.EvalSymlinks(root)
		if err != nil {
			return err
		}
		k, ok, err := unpacked(ctx, root)
		if err == nil && !ok {
			return fs.ErrNotExist
		}
		if err == nil && arch != "" && k.Arch != arch {
			err = fmt.Errorf("%s is a kernel of %s, not of %s", k.Image, k.Arch, arch)
		}
		if err == nil {
			err = k.readConfig(ctx)
		}
		if err != nil {
			return &packedError{err, root}
		}
		return nil
	})
	if err != nil {
		return Kernel{}, fmt.Errorf("unpack kernel: %w", err)
	}
	return c.kernel(ctx, arch)
}

// packedError is an error of packages that were unpacked into a folder, which is gone by then: names in it are those in the
// packages.
type packedError struct {
	err  error
	root string
}

func (e *packedError) Error() string {
	text := e.err.Error()
	if several, ok := errors.AsType[*severalError](e.err); ok {
		text = fmt.Sprintf("there are %d kernels: unpack it into a folder, and name one there: %s", len(several.images),
			strings.Join(several.images, ", "))
	}
	return strings.NewReplacer(e.root+"/", "", e.root, "it").Replace(text)
}

func (e *packedError) Unwrap() error { return e.err }

// want is what is asked for of Debian's kernels.
type want struct {
	version, suite string
	cloud          bool
	arch           string
	explicit       bool // the name says the architecture
}

var (
	suiteName   = regexp.MustCompile(`^[a-z]+(-backports)?$`)
	versionName = regexp.MustCompile(`^[0-9]+\.[0-9]+[0-9A-Za-z.+~-]*$`)
)

func parseWant(name string) (w want, err error) {
	w.arch = hostArch()
	for _, arch := range Arches() {
		if rest, ok := strings.CutSuffix(name, "-"+arch); ok {
			name, w.arch, w.explicit = rest, arch, true
			break
		}
	}
	name, w.cloud = strings.CutSuffix(name, cloud)
	switch {
	case versionName.MatchString(name):
		w.version = name
		return w, nil
	case suiteName.MatchString(name):
		if w.suite = cmp.Or(aliases[name], name); slices.Contains(suites, w.suite) {
			return w, nil
		}
		return w, fmt.Errorf("the suite is none of %s", strings.Join(suites, ", "))
	}
	return w, errors.New("it is not debian:VERSION or debian:SUITE, each with -cloud or without, and with -arm64 or without")
}

// has tells whether an offer is one of those that are wanted.
func (w want) has(o Offer) bool {
	name := strings.TrimSuffix(strings.TrimPrefix(o.Name, debianPrefix), archSuffix(o.Arch))
	version, isCloud := strings.CutSuffix(name, cloud)
	switch {
	case isCloud != w.cloud || o.Arch != w.arch:
		return false
	case w.suite != "":
		return slices.Contains(o.Suites, w.suite) || slices.Contains(o.Suites, w.suite+"-security")
	}
	rest, ok := strings.CutPrefix(version, w.version)
	return ok && (rest == "" || strings.ContainsRune(".+~-", rune(rest[0])))
}

const debianPrefix = "debian:"

// archSuffix is what names of kernels end in, nothing for this machine's architecture.
func archSuffix(arch string) string {
	if arch == hostArch() {
		return ""
	}
	return "-" + arch
}

// folder is where the cache keeps what was wanted: of a series its newest.
func (w want) folder() string {
	switch {
	case strings.Count(w.version, ".") > 1 || strings.Trim(w.version, "0123456789.") != "":
		return folderOf(Offer{Name: debianPrefix + w.version + map[bool]string{true: cloud}[w.cloud], Arch: w.arch})
	case w.cloud:
		return w.version + folderSuffix(w.arch)
	}
	return w.version + "-full" + folderSuffix(w.arch)
}

// folderOf is where the cache keeps a kernel of a version.
func folderOf(o Offer) string {
	return "debian-" + strings.TrimSuffix(strings.TrimPrefix(o.Name, debianPrefix), archSuffix(o.Arch)) + folderSuffix(o.Arch)
}

// folderSuffix is what folders of the cache end in. It is the same on every machine: a home may be that of several.
func folderSuffix(arch string) string {
	if arch == AMD64 {
		return ""
	}
	return "-" + arch
}

// newer orders offers by the numbers of their versions. A release candidate has fewer of them.
func newer(a, b Offer) int {
	return cmp.Or(slices.Compare(numbers(a.Name), numbers(b.Name)), strings.Compare(a.Version, b.Version))
}

var digits = regexp.MustCompile(`[0-9]+`)

func numbers(s string) []int {
	var ns []int
	for _, d := range digits.FindAllString(s, -1) {
		n, _ := strconv.Atoi(d)
		ns = append(ns, n)
	}
	return ns
}

// List lists the kernels of an architecture in Debian's archive, the oldest first, as [Resolve] names
// them. dir is the cache.
func List(ctx context.Context, dir, arch string) ([]Offer, error) {
	_, offers, err := offered(ctx, dir, arch)
	if err != nil {
		return nil, err
	}
	newest := make(map[string]int)
	for i, o := range offers {
		if j, ok := newest[o.Series]; !ok || newer(offers[j], o) < 0 {
			newest[o.Series] = i
		}
	}
	for i := range offers {
		o := &offers[i]
		o.Newest = newest[o.Series] == i
		o.Cached = releaseIn(filepath.Join(dir, folderOf(*o)), arch)
		if series, err := parseWant(o.Series); err == nil && o.Newest {
			o.CachedSeries = releaseIn(filepath.Join(dir, series.folder()), arch)
		}
	}
	return offers, nil
}

// releaseIn is the release of Debian's kernel of an architecture in a folder of the cache; empty for none.
func releaseIn(folder, arch string) string {
	for _, lib := range []string{"root/lib/modules/*", "root/usr/lib/modules/*"} {
		releases, err := filepath.Glob(filepath.Join(folder, lib))
		if err == nil && len(releases) == 1 && strings.HasSuffix(releases[0], "-"+arch) {
			return filepath.Base(releases[0])
		}
	}
	return ""
}

// offered sets up apt in the cache and reads which kernels there are.
func offered(ctx context.Context, dir, arch string) (*apt, []Offer, error) {
	for _, tool := range []string{"apt-get", "apt-cache"} {
		if _, err := program(tool); err != nil {
			return nil, nil, &feature.Missing{Feature: "Debian's " + tool, Help: "unthunk lab takes files, folders and trees without it"}
		}
	}
	if err := openCache(ctx, dir); err != nil {
		return nil, nil, err
	}
	a, err := newApt(ctx, filepath.Join(dir, "apt"+folderSuffix(arch)), arch, suites...)
	if err != nil {
		return nil, nil, err
	}
	if a == nil {
		return nil, nil, &feature.Missing{Feature: "a Debian source of apt", Help: "try apt-get update"}
	}
	names, err := a.search(ctx, `^linux-(image|binary|modules|base)-[0-9].*-`+arch+"$")
	if err != nil {
		return nil, nil, err
	}
	images := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !packageName.MatchString(name) })
	if len(images) == 0 {
		return a, nil, nil
	}
	versions, err := output(ctx, "apt-cache", slices.Concat(a.options, []string{"madison"}, images)...)
	if err != nil {
		return nil, nil, err
	}
	control, err := output(ctx, "apt-cache", slices.Concat(a.options, []string{"show", "--no-all-versions"}, images)...)
	return a, whole(parseOffers(versions), partsOf(control), names), err
}

// whole are the offers of which each part is there. Suites keep the signed images of kernels whose
// modules they have no more. Of what is in linux-base, the configuration, a kernel is whole without.
func whole(offers []Offer, parts map[string][]string, names []string) []Offer {
	return slices.DeleteFunc(offers, func(o Offer) bool {
		for _, part := range parts[o.pkg] {
			there := slices.Contains(names, part)
			if !there && !strings.HasPrefix(part, "linux-base-") {
				return true
			}
			if there {
				o.parts[part] = true
			}
		}
		return false
	})
}

// packageName is that of a kernel: no real-time one, none with debug symbols or without signature.
var packageName = regexp.MustCompile(
	`^linux-image-([0-9]+\.[0-9]+)((?:\.[0-9]+)*(?:-(?:0\.deb)?[0-9.]+)?(?:\+deb[0-9.]+)?)(-cloud)?-(amd64|arm64)$`)

// parseOffers reads lines of "PACKAGE | VERSION | SITE SUITE/COMPONENT ARCHITECTURE Packages", the
// newest version of each package first.
func parseOffers(text string) (offers []Offer) {
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() && len(offers) < maxOffers {
		fields := strings.Split(lines.Text(), "|")
		if len(fields) != 3 {
			continue
		}
		where := strings.Fields(fields[2])
		pkg, version := strings.TrimSpace(fields[0]), strings.TrimSpace(fields[1])
		m := packageName.FindStringSubmatch(pkg)
		if m == nil || len(where) < 2 || version == "" || strings.ContainsAny(version, " \t") {
			continue
		}
		suite, _, _ := strings.Cut(where[1], "/")
		o := Offer{Name: debianPrefix + m[1] + m[2] + m[3] + archSuffix(m[4]), Series: m[1] + m[3] + archSuffix(m[4]), Arch: m[4],
			Version: version, Suites: []string{suite}, pkg: pkg, parts: make(map[string]bool)}
		switch i := slices.IndexFunc(offers, func(other Offer) bool { return other.Name == o.Name }); {
		case i < 0:
			offers = append(offers, o)
		case offers[i].Version == version && !slices.Contains(offers[i].Suites, suite):
			offers[i].Suites = append(offers[i].Suites, suite)
		}
	}
	slices.SortFunc(offers, func(a, b Offer) int {
		return cmp.Or(slices.Compare(numbers(a.Name), numbers(b.Name)), strings.Compare(a.Name, b.Name))
	})
	return offers
}

// maxOffers is how many kernels are listed: the archive has some 200.
const maxOffers = 2000
