//go:build !amd64

package usercall

func functions() []uintptr { return nil }
func loops() []Kind        { return nil }
