package program

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// warnMisses warns of maps without an entry, when the program is to be run and nothing was to fill
// them: what a miss costs is not what a hit does. Maps that the program itself fills are not among them.
func (o *Opened) warnMisses(ctx context.Context, options Options) {
	if !options.Run || options.MapsFrom != "" {
		return
	}
	fills := o.fillsItself()
	var missed []string
	for _, name := range slices.Sorted(maps.Keys(o.Spec.Maps)) {
		if options.Maps[name] != "" || fills[name] {
			continue
		}
		switch m := o.Maps[name]; o.Spec.Maps[name].Type {
		case ebpf.Hash, ebpf.PerCPUHash, ebpf.LRUHash, ebpf.LRUCPUHash, ebpf.LPMTrie, ebpf.HashOfMaps:
			key := make([]byte, m.KeySize())
			if err := m.NextKey(nil, &key); errors.Is(err, ebpf.ErrKeyNotExist) {
				missed = append(missed, name)
			}
		case ebpf.DevMap, ebpf.DevMapHash, ebpf.CPUMap:
			if !options.Ports && !holdsAny(ctx, m) {
				o.Nowhere = append(o.Nowhere, name)
			}
		case ebpf.XSKMap: // the sockets are of another process
			if !options.Ports {
				o.Nowhere = append(o.Nowhere, name)
			}
		}
	}
	if len(missed) > 0 {
		o.warnf("maps are empty, so lookups in them miss: %s (--maps-from or --map fills them)", listed(missed))
	}
}

// NowhereText says that redirects by the maps of Nowhere go nowhere, and what would fill these; it is empty where there is none.
func (o *Opened) NowhereText() string {
	var ports, sockets, text []string
	for _, name := range o.Nowhere {
		if o.Spec.Maps[name].Type == ebpf.XSKMap {
			sockets = append(sockets, name)
		} else {
			ports = append(ports, name)
		}
	}
	if len(ports) > 0 {
		text = append(text, fmt.Sprintf("entries of the program's maps lead nowhere unless --map or --maps-from fills them (%s)", listed(ports)))
	}
	if len(sockets) > 0 {
		text = append(text, fmt.Sprintf("no AF_XDP socket is in the program's maps of them (%s)", listed(sockets)))
	}
	return strings.Join(text, ", and ")
}

// holdsAny tells whether a map has an entry that leads somewhere: one that is an array has all its keys. It has where it cannot be read.
func holdsAny(ctx context.Context, m *ebpf.Map) bool {
	found := errors.New("found")
	return each(ctx, m, func(_, _ []byte) error { return found }) != nil
}

// fillsItself are the maps that programs of an object write entries into, by name. The address of a map stands right before the call;
// where it does not, all that the program names may be meant.
func (o *Opened) fillsItself() map[string]bool {
	fills := map[string]bool{}
	for _, p := range o.Spec.Programs {
		var near, all []string // since the last call, and at all
		elsewhere := false
		for i := range p.Instructions {
			ins := &p.Instructions[i]
			switch {
			case ins.IsLoadFromMap() && ins.Reference() != "":
				near, all = append(near, ins.Reference()), append(all, ins.Reference())
			case ins.IsBuiltinCall() && asm.BuiltinFunc(ins.Constant) == asm.FnMapUpdateElem:
				elsewhere = elsewhere || len(near) == 0
				for _, name := range near {
					fills[name] = true
				}
				near = nil
			case ins.IsBuiltinCall(), ins.IsFunctionCall(), ins.IsKfuncCall():
				near = nil
			}
		}
		if elsewhere {
			for _, name := range all {
				fills[name] = true
			}
		}
	}
	return fills
}
