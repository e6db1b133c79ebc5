//go:build !race

package testutil

const slack = 1 // see race.go
