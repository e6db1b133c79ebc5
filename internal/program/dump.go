package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// layout is how entries of a map are, in bytes.
type layout struct {
	key, value int
	// cpus is how many CPUs have a value each; 0 when all share one.
	cpus int
}

// stride is what an entry's values take, as the kernel wants them.
func (l layout) stride() int {
	if l.cpus == 0 {
		return l.value
	}
	return (l.value + 7) &^ 7 * l.cpus
}

// room is how many bytes of text one entry may have: bpftool writes up to 32 for a byte with
// line breaks, and as much again for its formatted form, for each CPU of the machine that it runs on.
func (l layout) room() int64 {
	const text, other = 256, 64 << 10
	values := int64(l.value)
	if l.cpus > 0 {
		values *= int64(max(l.cpus, 64))
	}
	return min((int64(l.key)+values)*text, maxEntryText) + other
}

// maxEntryText is the most text of one entry, in bytes: a value of 9 MB. An entry is held up to three times.
const maxEntryText = 64 << 20

// dumpEntry is an element of a dump: `bpftool map dump -j` writes it (print_entry_json in
// tools/bpf/bpftool/map.c).
type dumpEntry struct {
	Key       json.RawMessage `json:"key"`
	Value     json.RawMessage `json:"value"`
	Values    dumpValues      `json:"values"`
	Formatted json.RawMessage `json:"formatted"`
	// Elements is of the document around elements, when bpftool dumps several maps.
	Elements json.RawMessage `json:"elements"`
}

type dumpValue struct {
	CPU   *int            `json:"cpu"`
	Value json.RawMessage `json:"value"`
}

// dumpValues are the values of an entry, one for each CPU.
type dumpValues []dumpValue

// maxDumpCPUs is the most CPUs that Linux can have (NR_CPUS of arch/x86/Kconfig).
const maxDumpCPUs = 8192

// UnmarshalJSON reads one value after the other: an empty one of two bytes would take twenty times as much.
func (v *dumpValues) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	switch token, err := d.Token(); {
	case err != nil:
		return err
	case token == nil: // null
		return nil
	case token != json.Delim('['):
		return errors.New("its values are no array")
	}
	*v = dumpValues{}
	for d.More() {
		if len(*v) == maxDumpCPUs {
			return fmt.Errorf("values of more than %d CPUs", maxDumpCPUs)
		}
		var one dumpValue
		if err := d.Decode(&one); err != nil {
			return err
		}
		*v = append(*v, one)
	}
	return nil
}

// dumped says what a dump had beside what was read.
type dumped struct {
	entries int
	// otherCPUs is the number of values of CPUs that this machine does not have; absent of
	// entries that had gone when bpftool read them.
	otherCPUs, absent int
}

// readDump reads entries that bpftool wrote as JSON, and calls f with the bytes of each, which
// are overwritten after f. It holds one entry at a time, and ends with ctx.
func readDump(ctx context.Context, r io.Reader, l layout, f func(key, value []byte) error) (d dumped, err error) {
	limited := &limitedReader{r: r, room: l.room()}
	decoder := json.NewDecoder(limited)
	limited.offset = decoder.InputOffset
	if err := enterArray(decoder); err != nil {
		return d, err
	}
	key, value := make([]byte, l.key), make([]byte, l.stride())
	for decoder.More() {
		if err := ctx.Err(); err != nil {
			return d, err
		}
		var e dumpEntry
		if err := decoder.Decode(&e); err != nil {
			return d, dumpError(d.entries, err)
		}
		ok, err := d.entry(e, l, key, value)
		if err != nil {
			return d, dumpError(d.entries, err)
		}
		if !ok {
			d.absent++
			continue
		}
		if err := f(key, value); err != nil {
			return d, dumpError(d.entries, err)
		}
		d.entries++
	}
	if _, err := decoder.Token(); err != nil {
		return d, dumpError(d.entries, err)
	}
	return d, nil
}

func dumpError(entry int, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file ends within the dump")
	}
	return fmt.Errorf("entry %d: %w", entry+1, err)
}

// enterArray goes to the first element: of the array, or of "elements" of an object.
func enterArray(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return errors.New("it is not JSON: dump the map by `bpftool -j map dump`")
	}
	if token == json.Delim('[') {
		return nil
	}
	if token != json.Delim('{') {
		return errors.New("it is no dump of a map: `bpftool -j map dump` writes an array")
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		if name == "elements" {
			if token, err = d.Token(); err == nil && token == json.Delim('[') {
				return nil
			}
			break
		}
		var other json.RawMessage
		if err := d.Decode(&other); err != nil {
			return err
		}
	}
	return errors.New("it has no elements: `bpftool -j map dump` writes them")
}

// entry decodes one entry; false when bpftool found it gone.
func (d *dumped) entry(e dumpEntry, l layout, key, value []byte) (bool, error) {
	switch {
	case e.Elements != nil:
		return false, errors.New("the file is of several maps: dump one, by `bpftool -j map dump id N`")
	case e.Key == nil:
		return false, errors.New("there is no key")
	}
	if err := decodeBytes(e.Key, key, "key"); err != nil {
		return false, err
	}
	clear(value)
	if l.cpus == 0 {
		if len(e.Value) > 0 && e.Value[0] == '{' {
			var gone struct {
				Error string `json:"error"`
			}
			if json.Unmarshal(e.Value, &gone) == nil && gone.Error != "" {
				return false, nil
			}
		}
		if e.Values != nil {
			return false, errors.New("it has a value for each CPU, and the map has one for all")
		}
		return true, decodeBytes(e.Value, value, "value")
	}
	if e.Values == nil {
		return false, errors.New("it has one value, and the map has one for each CPU")
	}
	size := (l.value + 7) &^ 7
	for _, v := range e.Values {
		switch {
		case v.CPU == nil || *v.CPU < 0:
			return false, errors.New("a value does not say of which CPU it is")
		case *v.CPU >= l.cpus:
			d.otherCPUs++
			continue
		}
		if err := decodeBytes(v.Value, value[*v.CPU*size:][:l.value], "value"); err != nil {
			return false, err
		}
	}
	return true, nil
}

// decodeBytes reads ["0x0a","0b",12] into b, which it must fill. A decoder has found raw to be
// right JSON.
func decodeBytes(raw json.RawMessage, b []byte, what string) error {
	if len(raw) < 2 || raw[0] != '[' {
		return fmt.Errorf("the %s is %.40q, formatted by BTF: dump the map by `bpftool -j map dump`, which writes its bytes", what, raw)
	}
	n := 0
	for rest := raw[1 : len(raw)-1]; ; n++ {
		rest = bytes.TrimLeft(rest, " \t\r\n,")
		if len(rest) == 0 {
			break
		}
		end := bytes.IndexAny(rest, ",\t\r\n ")
		if end < 0 {
			end = len(rest)
		}
		text := string(bytes.Trim(rest[:end], `"`))
		v, err := strconv.ParseUint(text, 0, 8)
		if err != nil {
			return fmt.Errorf("byte %d of the %s is %.20q", n+1, what, text)
		}
		if n < len(b) {
			b[n] = byte(v)
		}
		rest = rest[end:]
	}
	if n != len(b) {
		return fmt.Errorf("the %s has %d bytes, those of the map have %d", what, n, len(b))
	}
	return nil
}

// limitedReader ends when a decoder has read room bytes beyond what it has decoded: an entry
// is held as a whole.
type limitedReader struct {
	r      io.Reader
	read   int64
	room   int64
	offset func() int64
}

func (l *limitedReader) Read(b []byte) (int, error) {
	left := l.room - (l.read - l.offset())
	if left <= 0 {
		return 0, fmt.Errorf("it has more than %d kB, which no entry of this map has", l.room>>10)
	}
	n, err := l.r.Read(b[:min(int64(len(b)), left)])
	l.read += int64(n)
	return n, err
}
