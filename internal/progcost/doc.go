// Package progcost measures what an XDP program costs a packet, or two programs side by side: package prog in the
// rounds of a run, with references, and its numbers as rows of a record.
package progcost
