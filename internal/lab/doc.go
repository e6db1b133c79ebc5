// Package lab counts what a redirected packet goes through on other kernels and with
// other boot parameters, by instruction and by indirect branch, in emulated guests:
// without a reboot of this machine and without a NIC.
package lab
