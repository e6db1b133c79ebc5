// Package rounds schedules the rounds of a run: on which CPU, how many, for how long, and what one round makes of its
// slots.
package rounds
