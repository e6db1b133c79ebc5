// Package stat turns samples into numbers that can be trusted: medians,
// intervals, differences, verdicts. It is pure: it touches no kernel.
//
// A sample is one number of one round, in ns per packet. Every round builds
// its chain afresh, so rounds differ by memory layout as well as by noise.
// Three things are assumed, and no shape of the distribution:
//
//   - [Summarize]: rounds are independent. Its interval is made of two order
//     statistics.
//   - [Paired]: what disturbs one round disturbs both its rows alike, so the
//     ratios of a round are independent and symmetric about their median.
//     Slow drift cancels. This is the comparison to prefer.
//   - [Unpaired]: two runs at different times. The machine drifts within each
//     and between them. What drift the runs show within themselves is carried
//     over to the gap between them as a random walk.
//
// Rates are compared as ratios, so all of it is done on logarithms.
package stat
