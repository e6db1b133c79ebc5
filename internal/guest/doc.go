// Package guest boots Debian kernels under QEMU and runs commands in them, so
// that tests see kernels and boot parameters this machine does not have.
//
// The guest is emulated (TCG): it needs neither root nor KVM, boots in a few
// seconds, and its timings say nothing about hardware. It has one CPU, 1 GiB,
// no disk and no network. Its initramfs holds a static Go program as /init
// (package guest/init), the modules asked for and the files to run.
package guest
