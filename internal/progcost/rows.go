package progcost

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/prog"
)

// By is what the packets of a row have in common.
type By string

// What rows can be made by.
const (
	ByVerdict By = "verdict"
	ByFlow    By = "flow"
	ByLength  By = "length"
	ByPacket  By = "packet"
)

// Bys lists them.
func Bys() []By { return []By{ByVerdict, ByFlow, ByLength, ByPacket} }

// All is the name of the row that has all packets.
const All = "all"

// maxClasses is how many rows a run has beside that of all packets. The packets of further flows are one row.
const maxClasses = 15

// class is a row before it is measured.
type class struct {
	name, value string
	packets     []int
}

// classes divides packets: first the row of all, then the classes by size. What is one class is no row of its own.
func classes(by By, packets *prog.Packets, clean prog.Clean) []class {
	all := class{name: All}
	key := keyOf(by, packets, clean)
	at := make(map[string]int)
	var found []class
	for i := range packets.Frames {
		all.packets = append(all.packets, i)
		value := key(i)
		n, known := at[value]
		if !known {
			n = len(found)
			at[value] = n
			found = append(found, class{name: string(by) + "/" + value, value: value})
		}
		found[n].packets = append(found[n].packets, i)
	}
	if len(found) < 2 {
		return []class{all}
	}
	slices.SortStableFunc(found, func(a, b class) int { return cmp.Compare(len(b.packets), len(a.packets)) })
	if len(found) > maxClasses {
		const others = "others"
		rest := class{name: string(by) + "/" + others, value: others}
		for _, c := range found[maxClasses-1:] {
			rest.packets = append(rest.packets, c.packets...)
		}
		slices.Sort(rest.packets)
		found = append(found[:maxClasses-1], rest)
	}
	return append([]class{all}, found...)
}

// Class is a set of packets that make a row: of [All], or with a value in common.
type Class struct {
	// Name is "all" or "verdict/tx", Value the latter's "tx".
	Name, Value string
	// Packets are indexes.
	Packets []int
}

// Classes divides packets into rows, as a run does.
func Classes(by By, packets *prog.Packets, clean prog.Clean) (all []Class) {
	for _, c := range classes(by, packets, clean) {
		all = append(all, Class{c.name, c.value, c.packets})
	}
	return all
}

// VerdictName is the short name of a verdict: "tx".
func VerdictName(v uint32) string { return verdict(v) }

// keyOf returns what tells the class of a packet.
func keyOf(by By, packets *prog.Packets, clean prog.Clean) func(i int) string {
	switch by {
	case ByFlow:
		return func(i int) string { return prog.Flow(packets.Frames[i]) }
	case ByLength:
		return func(i int) string { return lengthClass(len(packets.Frames[i])) }
	case ByPacket:
		first := make(map[string]int) // equal packets are one
		return func(i int) string {
			frame := string(packets.Frames[i])
			if _, known := first[frame]; !known {
				first[frame] = i + 1
			}
			return strconv.Itoa(first[frame])
		}
	}
	return func(i int) string { return verdict(clean.Outcomes[i].Verdict) }
}

// verdict is the short name of one: "tx".
func verdict(v uint32) string { return strings.ToLower(strings.TrimPrefix(prog.Verdict(v), "XDP_")) }

// lengthClass are the classes of RMON (RFC 2819), with larger ones behind: "64-127".
func lengthClass(n int) string {
	switch {
	case n < 65:
		return "0-64"
	case n > 1518:
		return "1519-"
	}
	for _, c := range [][2]int{{65, 127}, {128, 255}, {256, 511}, {512, 1023}} {
		if n <= c[1] {
			return fmt.Sprintf("%d-%d", c[0], c[1])
		}
	}
	return "1024-1518"
}
