// Command testsum reads the output of go test -json on standard input and
// prints what go test prints without it, then one line with the number of
// tests passed, failed and skipped, and which features the skipped ones
// missed.
//
//	go test -json ./... | go run ./internal/dev/testsum
//
// Subtests and benchmarks count as tests; a test that has subtests counts only
// when it failed or was skipped by itself. The exit code is 1 when a test or a
// build failed, or when nothing ran.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(run(os.Stdin, os.Stdout))
}

func run(stdin io.Reader, stdout io.Writer) int {
	s := newSummary(stdout)
	if err := s.read(stdin); err != nil {
		fmt.Fprintf(stdout, "testsum: %v\n", err)
		return 1
	}
	s.print()
	if s.failed > 0 || s.packages == 0 {
		return 1
	}
	return 0
}
