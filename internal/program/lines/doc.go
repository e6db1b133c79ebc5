// Package lines counts how often each source line of an XDP program runs.
//
// The counts come from a copy of the program that has a counter at the begin of each block of
// its bytecode: a run of instructions that is entered at its first one only. The copy is
// never the one that is timed. A line's count is that of its block that runs most often.
//
// In another copy each redirect notes where it goes: see [NoteRedirects].
package lines
