// Package result is the record of one measurement: which machine, which
// samples, which warnings. It saves, loads and compares records.
package result
