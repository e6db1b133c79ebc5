//go:build !amd64

package virtual

// Signature is empty: other architectures have no register for it.
func Signature() string { return "" }
