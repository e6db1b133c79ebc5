// Package functions is the table of what unthunk knows of the kernel's functions by
// their names.
package functions
