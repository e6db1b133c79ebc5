// Package conclusion says in sentences what a record comes to.
package conclusion
