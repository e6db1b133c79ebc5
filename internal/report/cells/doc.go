// Package cells writes the values of records as strings, each in one way for text
// and page.
package cells
