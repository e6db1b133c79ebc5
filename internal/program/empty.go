package program

import (
	"errors"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// warnMisses warns of maps without an entry, when the program is to be run and nothing was to fill
// them: what a miss costs is not what a hit does.
func (o *Opened) warnMisses(options Options) {
	if !options.Run || options.MapsFrom != "" || len(options.Maps) > 0 {
		return
	}
	var empty []string
	for _, name := range slices.Sorted(maps.Keys(o.Spec.Maps)) {
		switch m := o.Maps[name]; o.Spec.Maps[name].Type {
		case ebpf.Hash, ebpf.PerCPUHash, ebpf.LRUHash, ebpf.LRUCPUHash, ebpf.LPMTrie, ebpf.HashOfMaps:
			key := make([]byte, m.KeySize())
			if err := m.NextKey(nil, &key); errors.Is(err, ebpf.ErrKeyNotExist) {
				empty = append(empty, name)
			}
		}
	}
	if len(empty) > 0 {
		o.warnf("maps are empty, so lookups in them miss: %s (--maps-from or --map fills them)", listed(empty))
	}
}
