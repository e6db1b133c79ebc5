// Package chain holds the XDP programs of one benchmark chain (generator,
// program under test, sink) and loads them.
package chain
