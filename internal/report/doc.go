// Package report writes records for people and for other tools. It computes
// nothing.
package report
