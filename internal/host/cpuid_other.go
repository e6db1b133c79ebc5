//go:build !amd64

package host

func hypervisor() string { return "" }
