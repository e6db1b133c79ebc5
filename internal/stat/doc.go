// Package stat turns samples into numbers that can be trusted: medians,
// intervals, differences, verdicts. It is pure: it touches no kernel.
//
// A sample is one number of one round, in ns per packet or per call. Every
// round builds a new chain, so rounds differ by memory layout as well as
// by noise. Three things are assumed, and no shape of the distribution:
//
//   - [Summarize]: rounds are independent. Its interval is made of two order
//     statistics.
//   - [Paired], [Shift]: what disturbs one round disturbs both its rows alike,
//     so the ratios, or differences, of a round are independent and symmetric
//     about their median. Slow drift cancels. This is the comparison to prefer.
//   - [Unpaired]: two runs at different times. The machine drifts within each
//     and between them. What drift the runs show within themselves is carried
//     over to the gap between them as a random walk.
//
// Rates are compared as ratios, so that is done on logarithms. The price of a
// single call is a difference of two times, which may be 0 or negative in a
// round: [Shift], [PairedPrices] and [UnpairedPrices] do the same on ns.
package stat
