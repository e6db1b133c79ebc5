package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/guest"
)

// listKernels writes which kernels of an architecture an archive has: the newest of each series, or all of one.
func listKernels(ctx context.Context, s std, what, arch string) error {
	archive, series, one := strings.Cut(what, ":")
	if archive != "debian" || one && series == "" {
		return usagef("--list %q is not debian or debian:SERIES", what)
	}
	cache, err := guest.CacheDir()
	if err != nil {
		return err
	}
	offers, err := guest.List(ctx, cache, arch)
	if err != nil {
		return err
	}
	offers = slices.DeleteFunc(offers, func(o guest.Offer) bool {
		if one {
			return strings.TrimSuffix(o.Series, "-cloud") != strings.TrimSuffix(series, "-cloud")
		}
		return !o.Newest
	})
	if len(offers) == 0 {
		return &feature.Missing{Feature: "a kernel of " + what, Help: "unthunk lab --list debian names the series that there are"}
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KERNEL\tversion\tsuite\tin the cache")
	for _, o := range offers {
		name, there := o.Name, o.Cached
		if !one {
			name, there = "debian:"+o.Series, o.CachedSeries
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, o.Version, strings.Join(o.Suites, ", "), there)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write kernels: %w", err)
	}
	return nil
}
