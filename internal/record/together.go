package record

import (
	"errors"
	"fmt"
	"os"
)

// Together reads records that are in use at the same time: all of them have the limits of
// one, in bytes of their files and in memory. Its zero value has read none.
type Together struct {
	// held is an estimate in bytes of what the records take, before the same without the last.
	held, before int64
}

// errTogether is for records that are more than one may be.
var errTogether = fmt.Errorf("with the records before it, it would take more than %d MiB of memory: name fewer", maxMemory>>20)

// TooLarge says whether a record is refused because of those before it.
func TooLarge(err error) bool { return errors.Is(err, errTogether) }

// Fit returns an error when the files have more than [MaxSize] bytes in all. What is not
// there is left to [Together.Load].
func (t *Together) Fit(files ...string) error {
	var sum int64
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
	}
	if sum > MaxSize {
		return fmt.Errorf("the records have %d MB together, more than %d", sum>>20, MaxSize>>20)
	}
	return nil
}

// Load is [Load] of one more record.
func (t *Together) Load(path string) (*Saved, error) {
	before := t.held
	s, err := load(path, t.parse)
	if err != nil {
		t.held = before
		return nil, err
	}
	s.File = path
	return s, nil
}

// Keep says what is kept of the last record: a number of rows, and of texts that have so
// many bytes together.
func (t *Together) Keep(rows, texts, bytes int) {
	t.held = t.before + int64(rows)*costObject + int64(texts)*costNamed + int64(bytes)
}
