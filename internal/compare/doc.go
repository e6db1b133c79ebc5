// Package compare says what two records, or many over time, differ in.
package compare
