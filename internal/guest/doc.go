// Package guest boots Linux kernels under QEMU and runs unthunk in them.
//
// The guest is emulated (TCG): it needs neither root nor KVM and boots in a few
// seconds. QEMU runs in its sandbox, and as nobody when this is root. The guest has one
// CPU, 512 MiB, no disk and no network. Its initramfs holds unthunk as /init and the
// modules asked for.
package guest
