package report

// Options of the text writers. The zero value is 80 columns without color.
type Options struct {
	// Width of the text in columns; 0 means 80.
	Width int
	// Color turns on ANSI colors.
	Color bool
}
