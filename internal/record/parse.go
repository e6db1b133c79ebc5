package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// parseHead is the document's kind. What it is comes before what is wrong with
// it.
func parseHead(b []byte) (kind string, err error) {
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
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&head); err != nil {
		var wrongType *json.UnmarshalTypeError
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return "", errors.New("truncated: the JSON ends in the middle")
		case errors.As(err, &wrongType):
			return "", errors.New("not a record of unthunk")
		}
		return "", fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return "", errors.New("more follows after the JSON document")
	}
	switch {
	case head.Schema == nil:
		return "", errors.New("not a record of unthunk: it has no schema")
	case *head.Schema != Schema:
		return "", fmt.Errorf("schema %.40q: this unthunk reads %q", *head.Schema, Schema)
	}
	count := counter{dec: json.NewDecoder(bytes.NewReader(b))}
	count.dec.UseNumber()
	if err := count.value(false); err != nil {
		return "", err
	}
	return head.Kind, nil
}

// counter counts what a document holds before it is made: an element of a list of
// rows takes two bytes in the file and hundreds in memory, even one of another type,
// which json.Unmarshal passes over.
type counter struct {
	dec             *json.Decoder
	objects, values int
}

// value counts one value and all in it. Elements of a list count as objects, except for
// those of a plain list, which has numbers or texts.
func (c *counter) value(plain bool) error {
	token, err := c.dec.Token()
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	open, _ := token.(json.Delim)
	for open != 0 && c.dec.More() {
		inner := false // a plain list
		if open == '{' {
			key, err := c.dec.Token()
			if err != nil {
				return fmt.Errorf("not JSON: %w", err)
			}
			switch key {
			case "samples", "rounds", "cpus", "targets", "via", "frames":
				inner = true
			}
		}
		if open == '{' || plain {
			c.values++
		} else {
			c.objects++
		}
		switch {
		case c.objects > maxObjects:
			return fmt.Errorf("more than %d JSON objects", maxObjects)
		case c.values > maxValues:
			return fmt.Errorf("more than %d JSON values", maxValues)
		}
		if err := c.value(inner); err != nil {
			return err
		}
	}
	if open != 0 {
		_, err = c.dec.Token() // its end
	}
	return err
}
