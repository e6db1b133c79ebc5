// Command testsum reads the output of go test -json on standard input, or of
// several at the same time from the files that are named, and prints what go test
// prints without it, then one line with the number of tests passed, failed and
// skipped, and which features the skipped ones missed.
//
//	go test -json ./... | go run ./internal/dev/testsum
//	testsum <(go test -json ./a) <(go test -json ./b)
//
// Subtests and benchmarks count as tests; a test that has subtests counts only
// when it failed or was skipped by itself. The exit code is 1 when a test or a
// build failed, or when nothing ran.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout))
}

func run(files []string, stdin io.Reader, stdout io.Writer) int {
	s := newSummary(stdout)
	if err := s.readAll(files, stdin); err != nil {
		fmt.Fprintf(stdout, "testsum: %v\n", err)
		return 1
	}
	s.print()
	if s.failed > 0 || s.packages == 0 {
		return 1
	}
	return 0
}

// readAll reads all files at the same time, or stdin when none is named.
func (s *summary) readAll(files []string, stdin io.Reader) error {
	if len(files) == 0 {
		return s.read(stdin)
	}
	errs := make(chan error)
	for _, file := range files {
		go func() {
			f, err := os.Open(file)
			if err != nil {
				errs <- err
				return
			}
			defer f.Close()
			errs <- s.read(f)
		}()
	}
	var err error
	for range files {
		err = errors.Join(err, <-errs)
	}
	return err
}
