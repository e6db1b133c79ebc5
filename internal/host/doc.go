// Package host answers what machine this is, as far as it matters to
// XDP_REDIRECT: CPU, kernel build, mitigations as they are in memory, NICs.
package host
