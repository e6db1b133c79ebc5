// Package lab boots other kernels under QEMU and runs unthunk in them: it counts what
// a redirected packet goes through there, by instruction, with and without a
// mitigation, without a reboot of this machine and without a NIC.
//
// The guest is emulated (TCG): it needs neither root nor KVM and boots in a few
// seconds. It has one CPU, 512 MiB, no disk and no network. Its initramfs holds this
// program as /init and the modules asked for.
package lab
