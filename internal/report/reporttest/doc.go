// Package reporttest has made-up records of every kind and golden files for the
// tests of report and page.
package reporttest
