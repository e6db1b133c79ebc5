// Package xray reads the redirect path of a device or a driver, and single functions,
// from a kernel and makes them rows and listings.
package xray
