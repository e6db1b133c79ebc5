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
	"unicode/utf8"
)

// parseHead is the document's kind. What it is comes before what is wrong with
// it.
func (t *Together) parseHead(b []byte) (kind string, err error) {
	if len(b) > MaxSize {
		return "", errSize
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
	if err := t.fits(b); err != nil {
		return "", err
	}
	return head.Kind, nil
}

// errNotUTF8 is that of text of which package json makes three bytes for one.
var errNotUTF8 = errors.New("not JSON: it is not UTF-8")

var errSize = fmt.Errorf("larger than %d MiB", MaxSize>>20)

// fits returns an error when one more record, which is valid JSON, is too large.
func (t *Together) fits(b []byte) error {
	if len(b) > MaxSize {
		return errSize
	}
	if !utf8.Valid(b) {
		return errNotUTF8
	}
	count := counter{b: b, memory: t.held + int64(len(b)), others: t.held > 0, limits: recordLimits}
	if err := count.value(nil); err != nil {
		return err
	}
	t.before, t.held = t.held, count.memory
	return nil
}

// Limits are how much a JSON document of others may have that is no record.
type Limits struct {
	// Memory is what all that is made of it may take, in bytes, as it is estimated from the objects, names and texts.
	Memory int64
	// Keys are the names of an object, Elements those of a list.
	Keys, Elements int
	// Lists are the elements of lists that have another limit, by their name in lower case.
	Lists map[string]int
	// Plain are the names of lists that have numbers or texts.
	Plain []string
}

// most is the limit of a list by its name.
func (l *Limits) most(name string) int {
	if n, ok := l.Lists[strings.ToLower(name)]; ok {
		return n
	}
	return l.Elements
}

// Vet returns an error when a JSON document has more than limits allow, else what is made of it takes in bytes, as it is
// estimated.
func Vet(b []byte, limits Limits) (memory int64, err error) {
	if !json.Valid(b) {
		return 0, notJSON(b, json.Unmarshal(b, new(json.RawMessage)))
	}
	if !utf8.Valid(b) {
		return 0, errNotUTF8
	}
	count := counter{b: b, memory: int64(len(b)), limits: &limits}
	err = count.value(nil)
	return count.memory, err
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
	limits *Limits
}

// What a value of a document takes in memory, in bytes: at most, of the types that there are.
const (
	costObject = 400 // an element of a list of rows: the largest type has 320
	costNamed  = 80  // an entry of a map of texts
	costInner  = 100 // what a pointer leads to
	costText   = 64  // with the room that a list has for more
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
	plain, most := slices.Contains(c.limits.Plain, key), c.limits.most(key)
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
		case open == '{' && n >= c.limits.Keys:
			return fmt.Errorf("more than %d names in one JSON object", c.limits.Keys)
		case open == '[' && n >= most:
			return fmt.Errorf("more than %d %s", most, strings.ToLower(cmp.Or(key, "values")))
		case c.objects > maxObjects:
			return fmt.Errorf("more than %d JSON objects", maxObjects)
		case c.named > maxNamed:
			return fmt.Errorf("more than %d JSON names", maxNamed)
		case c.plain > maxPlain:
			return fmt.Errorf("more than %d JSON values in plain lists", maxPlain)
		case c.memory > c.limits.Memory:
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
	return fmt.Errorf("it would take more than %d MiB of memory", c.limits.Memory>>20)
}

// recordLimits are those of records. A list's name counts in any spelling that json.Unmarshal takes for it.
var recordLimits = &Limits{
	Memory: maxMemory, Keys: maxKeys, Elements: MaxRows,
	Lists: map[string]int{
		"samples": MaxRounds, "rounds": MaxRounds, "functions": MaxFunctions, "stacks": MaxStacks, "cpus": maxCPUs,
		"namespaces": maxPrograms, "maps": maxPrograms, "observers": maxPrograms, "costs": maxPrograms, "unseen": maxPrograms,
		"targets": maxNames, "via": maxNames, "what": maxNames, "inner": maxNames, "machine": maxNames, "causes": maxNames,
		"references": maxNames, "console": maxNames, "unlike": maxNames,
	},
	Plain: []string{"samples", "rounds", "cpus", "targets", "via", "frames", "console"},
}
