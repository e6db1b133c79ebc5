package progcount

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/unthunk/unthunk/internal/progcost"
	"github.com/unthunk/unthunk/prog"
)

// Limits on what a guest says that it counted.
const (
	// maxInstructions is how many a packet may take: the verifier takes a million, in a loop more.
	maxInstructions = 1e9
	maxLength       = 1 << 16
	maxWarnings     = 64
	// maxText is how many characters a sentence of the guest has, maxLine a line of its verifier.
	maxText, maxLine = 1000, 300
)

// Check returns an error when no guest can have counted that of a job. The kernel of a guest is another's.
func (c *Counted) Check(j *Job) error {
	n := len(j.Packets.Frames)
	if c.Refused != "" {
		n = 0
	}
	switch {
	case len(c.Instructions) != n:
		return fmt.Errorf("%d of %d packets were counted", len(c.Instructions), n)
	case n > 0 && (len(c.Verdicts) != n || len(c.Lengths) != n || len(c.Hashes) != n):
		return fmt.Errorf("outcomes of %d, %d and %d packets of %d", len(c.Verdicts), len(c.Lengths), len(c.Hashes), n)
	case len(c.Targets) != 0 && len(c.Targets) != n:
		return fmt.Errorf("destinations of %d packets of %d", len(c.Targets), n)
	case len(c.Warnings) > maxWarnings || len(c.Log) > maxLog || len(c.Varies) > n || len(c.Wrong) > n:
		return errors.New("more words than a guest has to say")
	case len(c.Traced) > maxTraced+1 || len(c.Stands) > n || len(c.Traced) > 0 && len(c.Stands) != n:
		return fmt.Errorf("%d traced runs stand for %d of %d packets", len(c.Traced), len(c.Stands), n)
	case c.Code < 0 || c.Passes < 0 || c.Learned < 0 || c.Unsteady < 0 || c.Varying < 0:
		return errors.New("impossible numbers")
	}
	for i, count := range c.Instructions {
		// Less than the program that only passes is one instruction less: an exit alone.
		if count < -64 || count > maxInstructions {
			return fmt.Errorf("packet %d: impossible count %d", i+1, count)
		}
		if c.Lengths[i] < 0 || c.Lengths[i] > maxLength {
			return fmt.Errorf("packet %d: impossible length %d", i+1, c.Lengths[i])
		}
	}
	for i, times := range c.Wrong {
		if i < 0 || i >= n || times < 1 || times > c.Passes {
			return fmt.Errorf("packet %d of %d came out otherwise %d times", i+1, n, times)
		}
	}
	for _, run := range c.Traced {
		if run.Packet < 0 || run.Packet >= n || run.Slot < 0 || run.Ns > maxInstructions {
			return fmt.Errorf("impossible traced run of packet %d", run.Packet+1)
		}
	}
	for i, stands := range c.Stands {
		if stands < 0 || stands >= max(len(c.Traced), 1) {
			return fmt.Errorf("packet %d is like run %d of %d", i+1, stands, len(c.Traced))
		}
		if stands > 0 && c.Instructions[i] != int64(c.Traced[stands].Ns)-int64(c.Traced[0].Ns) {
			return fmt.Errorf("packet %d is like a run of other instructions", i+1)
		}
	}
	for _, i := range c.Varies {
		if i < 0 || i >= n {
			return fmt.Errorf("packet %d of %d varies", i+1, n)
		}
	}
	c.TargetsUnseen = Printable(c.TargetsUnseen, maxText)
	c.Refused, c.First, c.Tag = Printable(c.Refused, maxText), Printable(c.First, maxText), Printable(c.Tag, maxText)
	for i := range c.Warnings {
		c.Warnings[i] = Printable(c.Warnings[i], maxText)
	}
	for i := range c.Log {
		c.Log[i] = Printable(c.Log[i], maxLine)
	}
	return nil
}

// Printable is the beginning of what a guest wrote, as one line that a terminal prints as it is.
func Printable(s string, most int) string {
	r := []rune(strings.Join(strings.Fields(s), " "))
	r = r[:min(len(r), most)]
	for i := range r {
		if !unicode.IsPrint(r[i]) {
			r[i] = unicode.ReplacementChar
		}
	}
	return string(r)
}

// Row is a class of packets, and what the program takes of one.
type Row struct {
	// Name is "all", or what the packets have in common, "verdict/tx"; Value is that alone.
	Name, Value string
	Packets     int
	// Of are the packets by number.
	Of []int
	// Share is in percent.
	Share float64
	// Instructions are the mean of the packets, Least and Most those of single ones.
	Instructions float64
	Least, Most  int64
	// Verdicts is how many packets came out with each: "pass", "tx".
	Verdicts map[string]int
	// Outcome is a hash of what comes out of the packets, one by one: verdict, length, and bytes where they are always
	// the same.
	Outcome string
	// Redirects is a hash of where each packet is redirected to; empty where none is, and where that of one is not known.
	Redirects string
	// Refused says why there is no number.
	Refused string
}

// Rows makes rows of the counts: all packets, then classes of them.
func (c *Counted) Rows(j *Job) []Row {
	clean := prog.Clean{}
	for i := range c.Verdicts {
		clean.Outcomes = append(clean.Outcomes, prog.Outcome{Verdict: c.Verdicts[i], Length: c.Lengths[i], Hash: c.Hashes[i]})
	}
	var rows []Row
	for _, class := range progcost.Classes(j.By, j.Packets, clean) {
		rows = append(rows, c.row(class))
	}
	return rows
}

// tolerated is the share of runs that may come out otherwise than the clean run of their packet, as of progcost.
const tolerated = 1e-3

func (c *Counted) row(class progcost.Class) Row {
	row := Row{
		Name: class.Name, Value: class.Value, Packets: len(class.Packets), Of: class.Packets, Verdicts: map[string]int{},
		Share: 100 * float64(len(class.Packets)) / float64(len(c.Instructions)),
	}
	var sum int64
	wrong := 0
	outcome := fnv.New64a()
	for n, i := range class.Packets {
		count := c.Instructions[i]
		if n == 0 {
			row.Least, row.Most = count, count
		}
		sum, row.Least, row.Most = sum+count, min(row.Least, count), max(row.Most, count)
		wrong += c.Wrong[i]
		row.Verdicts[progcost.VerdictName(c.Verdicts[i])]++
		for _, x := range []uint64{uint64(c.Verdicts[i]), uint64(c.Lengths[i]), c.Hashes[i]} {
			outcome.Write(binary.LittleEndian.AppendUint64(nil, x))
		}
	}
	if runs := len(class.Packets) * c.Passes; float64(wrong) > tolerated*float64(runs) {
		row.Refused = fmt.Sprintf("%d of %d runs differ from a single run of their packet: %s", wrong, runs, c.First)
		return row
	}
	row.Redirects = c.redirects(class.Packets)
	row.Instructions, row.Outcome = float64(sum)/float64(len(class.Packets)), hex.EncodeToString(outcome.Sum(nil))
	return row
}

// redirects is a hash of where packets are redirected to.
func (c *Counted) redirects(packets []int) string {
	to, any := fnv.New64a(), false
	for _, i := range packets {
		if c.Verdicts[i] != progcost.Redirected {
			continue
		}
		if i >= len(c.Targets) || c.Targets[i] == "" || c.Targets[i] == progcost.Unknown {
			return ""
		}
		any = true
		fmt.Fprintf(to, "%d %s\n", i, c.Targets[i])
	}
	if !any {
		return ""
	}
	return hex.EncodeToString(to.Sum(nil))
}

// Doubts are what makes the numbers less worth, a sentence each.
func (c *Counted) Doubts(j *Job) (warns []string) {
	n := len(c.Instructions)
	warn := func(format string, args ...any) { warns = append(warns, fmt.Sprintf(format, args...)) }
	warns = append(warns, c.Warnings...)
	for _, copied := range j.Program.Copies {
		if copied.Why != "" {
			warn("map %s is not copied whole: %s", copied.Map, copied.Why)
		}
	}
	if m := len(c.Varies); m > 0 {
		warn("%d of %d packets take another number of instructions from run to run: theirs is the median of %d runs", m, n, c.Passes)
	}
	if len(c.Wrong) > 0 {
		runs := 0
		for _, i := range slices.Sorted(maps.Keys(c.Wrong)) {
			runs += c.Wrong[i]
		}
		warn("%d of %d runs came out otherwise than a single run: %s", runs, n*c.Passes, c.First)
	}
	if c.Learned > 0 {
		warn("%d of %d packets come out otherwise the first time, as the program's maps learn: what counts is the second time", c.Learned, n)
	}
	if c.Unsteady > 0 {
		warn("%d of %d packets come out otherwise from time to time", c.Unsteady, n)
	}
	if c.Varying > 0 {
		warn("%d of %d packets come out with other bytes each time, or each time that the program is loaded: "+
			"their bytes are not compared", c.Varying, n)
	}
	if c.TargetsUnseen != "" {
		warn("where redirects go is not known: %s", c.TargetsUnseen)
	}
	vary := 0
	for i, to := range c.Targets {
		if c.Verdicts[i] == progcost.Redirected && (to == "" || to == progcost.Unknown) {
			vary++
		}
	}
	if vary > 0 {
		warn("%d of %d packets are redirected to another place from run to run: where redirects go is not compared", vary, n)
	}
	if text := j.Packets.LeftOut(); text != "" {
		warn("left out of the packets: %s", text)
	}
	return warns
}
