// Package netlab makes private network namespaces with veth pairs in them.
//
// A namespace has no name and is mounted nowhere: one locked thread and its
// descriptors hold it, so it is gone with the process however that ends, by
// SIGKILL too, and its devices and XDP links with it.
package netlab
