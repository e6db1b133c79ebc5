// Package redirect measures XDP_REDIRECT.
//
// A row of a plan is one scenario at one bulk. The run is a number of rounds.
// Each round builds every chain anew, in a new network namespace with newly
// loaded programs, so that the accidents of memory layout are drawn again;
// within it all rows are measured in many short slots, interleaved, in a new
// order each time. A round gives one number a row, the 10th percentile of the
// windows of 1024 frames of all its slots. Frames are counted
// where they are sent, redirected and received, in each slot; a slot whose
// three counts disagree gives no number.
package redirect
