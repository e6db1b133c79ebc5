package lab

import "strings"

// LastLines are the last n lines that have text of what a guest printed, each as a terminal prints it.
func (c *CellResult) LastLines(n int) []string {
	var lines []string
	for line := range strings.SplitSeq(c.Console, "\n") {
		if line = printable(line, maxWords); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}

// OneLine is the beginning of a text as one line, as long as the sentences of a record may be.
func OneLine(s string) string { return printable(s, maxWhy) }
