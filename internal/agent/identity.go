package agent

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// application tells identities of unthunk from those that other programs compute of the same machine.
var application = [16]byte{0x5e, 0x1c, 0x3a, 0x60, 0x0f, 0x8b, 0x4d, 0x52, 0x9b, 0x6e, 0x27, 0x41, 0xd0, 0xc4, 0x88, 0x13}

// derived is an identity of 32 hexadecimal digits from which secret, 32 of them, cannot be computed: that of
// sd_id128_get_machine_app_specific(3).
func derived(secret string) (string, error) {
	key, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(secret), "-", ""))
	if err != nil || len(key) != 16 {
		return "", fmt.Errorf("not 32 hexadecimal digits")
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(application[:])
	id := mac.Sum(nil)[:16]
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // as systemd makes them: a UUID of version 4
	return hex.EncodeToString(id), nil
}

// bootID is the identity of the boot: [record.Machine.Boot].
func bootID(root fs.FS) (string, error) {
	b, err := fs.ReadFile(root, "proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot identity: %w", err)
	}
	id, err := derived(string(b))
	if err != nil {
		return "", fmt.Errorf("read boot identity: %w", err)
	}
	return id, nil
}

// machineID is the identity of the machine: of /etc/machine-id or, where there is none, of the firmware's product UUID.
// It is empty where both are missing.
func machineID(root fs.FS) string {
	for _, file := range []string{"etc/machine-id", "sys/class/dmi/id/product_uuid"} {
		b, err := fs.ReadFile(root, file)
		if err != nil {
			continue
		}
		if id, err := derived(string(b)); err == nil && strings.Trim(string(b), "0-\n") != "" {
			return id
		}
	}
	return ""
}

// NewIdentity is a random identity, for a machine that has none.
func NewIdentity() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it cannot fail
	return hex.EncodeToString(b[:])
}

// ioMMU is how DMA is translated: "none", or the types of all groups, as "DMA-FQ" or "DMA, identity". It is empty where
// that could not be seen.
func ioMMU(root fs.FS) string {
	groups, err := fs.ReadDir(root, "sys/kernel/iommu_groups")
	units, _ := fs.ReadDir(root, "sys/class/iommu")
	if err != nil && len(units) > 0 {
		return ""
	}
	var kinds []string
	for _, g := range groups {
		b, err := fs.ReadFile(root, path.Join("sys/kernel/iommu_groups", g.Name(), "type"))
		if err != nil {
			return ""
		}
		if kind := strings.TrimSpace(string(b)); !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		return "none"
	}
	slices.Sort(kinds)
	return record.Sentence(strings.Join(kinds, ", "))
}

// drivers are those of devices that carry traffic: hardware, a hypervisor's too, that is up.
func drivers(root fs.FS) []string {
	const dir = "sys/class/net"
	list := []string{}
	devices, _ := fs.ReadDir(root, dir)
	for _, d := range devices {
		target, err := fs.ReadLink(root, path.Join(dir, d.Name(), "device/driver"))
		state, _ := fs.ReadFile(root, path.Join(dir, d.Name(), "operstate"))
		if err != nil || strings.TrimSpace(string(state)) == "down" {
			continue
		}
		if name := record.Name(path.Base(target)); !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// machine is which machine this is. The host's name is left out when it is to be anonymous.
func machine(root fs.FS, identity string, labels map[string]string, anonymous bool) (record.Machine, error) {
	m := record.Machine{ID: cmp.Or(machineID(root), identity, NewIdentity()), Labels: labels, IOMMU: ioMMU(root), Drivers: drivers(root)}
	boot, err := bootID(root)
	if err != nil {
		return m, err
	}
	m.Boot = boot
	if !anonymous {
		name, _ := os.Hostname()
		m.Name = record.Name(name)
	}
	return m, nil
}

// here is the running machine.
func here() fs.FS { return os.DirFS("/") }
