// Package record holds what runs found, and saves, loads and checks it: one document
// a run, with its machine, its rows, its samples and its warnings.
package record
