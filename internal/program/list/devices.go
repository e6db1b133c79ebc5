package list

import (
	"github.com/safchain/ethtool"

	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/record"
)

// attachments are the programs on the devices of this thread's network namespace, by their
// numbers, and how many devices there are.
func attachments(n *namespace) (devices int, found map[uint32][]record.Attachment, err error) {
	devices, list, err := device.AllWithPrograms()
	if err != nil || len(list) == 0 {
		return devices, nil, err
	}
	found = make(map[uint32][]record.Attachment)
	driver := func(string) string { return "" }
	if tool, err := ethtool.NewEthtool(); err == nil { // a driver's name is all it is for
		defer tool.Close()
		driver = func(name string) string { s, _ := tool.DriverName(name); return clean(s) }
	}
	for _, d := range list {
		for _, p := range d.Programs {
			found[p.ID] = append(found[p.ID], record.Attachment{
				Device: clean(d.Name), Index: d.Index, Driver: driver(d.Name), Namespace: n.inode, Where: clean(n.name),
				Mode: p.Mode, By: "netlink",
			})
		}
	}
	return devices, found, nil
}
