// Package page draws records as one HTML page, as Markdown and as CSV.
package page
