package record

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// parseHead is the document's kind. What it is comes before what is wrong with
// it.
func (t *Together) parseHead(b []byte) (kind string, err error) {
	if len(b) > MaxSize {
		return "", fmt.Errorf("larger than %d MiB", MaxSize>>20)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return "", errors.New("the file is empty")
	}
	var head struct {
		Schema *string `json:"schema"`
		Kind   string  `json:"kind"`
	}
	// Unmarshal reads b where it is; a Decoder would copy it.
	if err := json.Unmarshal(b, &head); err != nil {
		return "", notJSON(b, err)
	}
	switch {
	case head.Schema == nil:
		return "", errors.New("not a record of unthunk: it has no schema")
	case *head.Schema != Schema:
		return "", fmt.Errorf("schema %.40q: this unthunk reads %q", *head.Schema, Schema)
	}
	count := counter{b: b, memory: t.held + int64(len(b)), others: t.held > 0}
	if err := count.value(nil); err != nil {
		return "", err
	}
	t.before, t.held = t.held, count.memory
	return head.Kind, nil
}

// notJSON says why b could not be decoded.
func notJSON(b []byte, err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return errors.New("not a record of unthunk")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	var first json.RawMessage
	if errDec := dec.Decode(&first); errDec == nil {
		return errors.New("more follows after the JSON document")
	} else if errors.Is(errDec, io.ErrUnexpectedEOF) {
		return errors.New("truncated: the JSON ends in the middle")
	}
	return fmt.Errorf("not JSON: %w", err)
}

// counter counts what a document holds before it is made: an element of a list of
// rows takes two bytes in the file and hundreds in memory, even one of another type,
// which json.Unmarshal passes over.
type counter struct {
	// b is valid JSON, which is read up to at. A json.Decoder takes ten times as long for its tokens.
	b  []byte
	at int

	objects, named, plain int
	// memory is an estimate in bytes of what all of it takes once it is made.
	memory int64
	// others says that memory includes other records.
	others bool
}

// What a value of a document takes in memory, in bytes: at most, of the types that there are.
const (
	costObject = 400 // an element of a list of rows: the largest type has 320
	costNamed  = 80  // an entry of a map of texts
	costInner  = 100 // what a pointer leads to
	costText   = 48
	costNumber = 16
)

// value counts one value, whose name in the object around it is name, and all in it; in a list it has no name.
// Elements of a list count as objects, except for those of a plain list, which has
// numbers or texts.
func (c *counter) value(name []byte) error {
	c.skip()
	open := c.b[c.at]
	switch open {
	case '{', '[':
		c.at++
	case '"':
		if c.quoted(); len(name) == 0 { // in a list: the cost of a name includes that of its text
			c.memory += costText - costNumber
		}
		return nil
	default:
		for c.at < len(c.b) && !isBetween(c.b[c.at]) && c.b[c.at] != ']' && c.b[c.at] != '}' {
			c.at++
		}
		return nil
	}
	key := string(name)
	if key != "" {
		c.memory += costInner
	}
	plain, most := slices.Contains(plainLists, key), mostElements(key)
	for n := 0; ; n++ { // values in this one
		if c.skip(); c.b[c.at] == open+2 { // ']' or '}'
			c.at++
			return nil
		}
		var inner []byte
		switch {
		case open == '{':
			inner = unquote(c.quoted())
			c.named++
			c.memory += costNamed
		case plain:
			c.plain++
			c.memory += costNumber
		default:
			c.objects++
			c.memory += costObject
		}
		switch {
		case open == '{' && n >= maxKeys:
			return fmt.Errorf("more than %d names in one JSON object", maxKeys)
		case open == '[' && n >= most:
			return fmt.Errorf("more than %d %s", most, strings.ToLower(cmp.Or(key, "values")))
		case c.objects > maxObjects:
			return fmt.Errorf("more than %d JSON objects", maxObjects)
		case c.named > maxNamed:
			return fmt.Errorf("more than %d JSON names", maxNamed)
		case c.plain > maxPlain:
			return fmt.Errorf("more than %d JSON values in plain lists", maxPlain)
		case c.memory > maxMemory:
			return c.tooLarge()
		}
		if err := c.value(inner); err != nil {
			return err
		}
	}
}

// isBetween tells whether a character stands between values.
func isBetween(b byte) bool {
	return b == ' ' || b == '\t' || b == '\r' || b == '\n' || b == ',' || b == ':'
}

// skip passes over what stands between values.
func (c *counter) skip() {
	for isBetween(c.b[c.at]) {
		c.at++
	}
}

// quoted passes over a text, and returns it with its quotes.
func (c *counter) quoted() []byte {
	from := c.at
	for c.at++; c.b[c.at] != '"'; c.at++ {
		if c.b[c.at] == '\\' {
			c.at++
		}
	}
	c.at++
	return c.b[from:c.at]
}

// unquote is a text without its quotes and escapes.
func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var text string
	if json.Unmarshal(quoted, &text) != nil {
		return nil // it was read before
	}
	return []byte(text)
}

func (c *counter) tooLarge() error {
	if c.others {
		return errTogether
	}
	return fmt.Errorf("it would take more than %d MiB of memory", maxMemory>>20)
}

// plainLists are the names of lists that have numbers or texts.
var plainLists = []string{"samples", "rounds", "cpus", "targets", "via", "frames", "console"}

// mostElements is the limit of a list by the name that it has, in any spelling that
// json.Unmarshal takes for it.
func mostElements(name string) int {
	switch strings.ToLower(name) {
	case "samples", "rounds":
		return MaxRounds
	case "functions":
		return MaxFunctions
	case "stacks":
		return MaxStacks
	case "cpus":
		return maxCPUs
	case "namespaces", "maps", "observers", "costs", "unseen":
		return maxPrograms
	case "targets", "via", "what", "inner", "machine", "causes", "references", "console", "unlike":
		return maxNames
	}
	return MaxRows
}
