// Package agent looks at a machine at work and measures what indirect calls cost it, so that nobody else on the machine
// notices: see [Measure]. What needs memory or time runs in children of the process, by [Part], so that all of it is gone
// with them.
package agent
