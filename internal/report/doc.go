// Package report writes records as text for people, and in the formats of other
// tools.
package report
