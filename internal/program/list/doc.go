// Package list finds the XDP programs of a machine: those that are loaded, the devices that
// run them, in every network namespace that can be reached, the maps that hold others, and
// what observes them. It attaches nothing and changes nothing.
package list
