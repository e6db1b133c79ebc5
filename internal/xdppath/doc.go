// Package xdppath walks the code that XDP_REDIRECT runs through and lists every
// indirect branch on it: where it stands, what it calls, how often it runs.
//
// A walk starts at roots: a driver's NAPI poll and ndo_xdp_xmit, and the XDP
// core ([CoreRoots]). It follows direct calls and tail jumps. The target of an
// indirect branch is found from the loads that feed its register, by the types
// of BTF (package codeflow).
//
// Nothing is left out silently. A function that is not followed to its end
// says why in [Function].Partial; a branch whose target is not understood is a
// [Site] that is [Unknown].
//
// The package reads code of x86-64 and of arm64.
package xdppath
