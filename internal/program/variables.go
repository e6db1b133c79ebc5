package program

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// variable is a place in a data section of an object: a global variable, or a member of one.
type variable struct {
	name    string
	data    []byte   // what it holds, in the section's contents
	kind    btf.Type // nil without BTF
	section string
}

// Assign gives a global variable of an object its value, before the object is loaded. The name is the variable's, or that of
// a member or an element: port, config.port, vips[2].address. The value is
//
//	80, -1, 0x50, 'x'       for whole numbers of 1 to 8 bytes
//	true, false             for booleans
//	NAME                    for an enumeration
//	192.0.2.1, 2001:db8::1  for 4 and 16 bytes, in network order
//	02:00:00:00:00:01       for 6 bytes
//	0x0a0b0c                for arrays and structures: as many bytes as they have
//	"eth0"                  for arrays of char; zeroes follow
//
// It returns an [OptionError].
func Assign(spec *ebpf.CollectionSpec, name, value string) error {
	v, err := find(spec, name)
	if err != nil {
		return err
	}
	b, err := encode(v.kind, len(v.data), value)
	if err != nil {
		return &OptionError{Err: fmt.Errorf("set %s: %w", name, err)}
	}
	copy(v.data, b)
	return nil
}

// find finds a variable, and the member of it that the rest of name leads to.
func find(spec *ebpf.CollectionSpec, name string) (variable, error) {
	base, rest := name, ""
	if i := strings.IndexAny(name, ".["); i >= 0 {
		base, rest = name[:i], name[i:]
	}
	all := variables(spec)
	v, ok := all[base]
	if !ok {
		known := slices.Sorted(maps.Keys(all))
		err := fmt.Errorf("the program uses no global variable %s: it uses %s", base, listed(known))
		if len(known) == 0 {
			err = fmt.Errorf("the program uses no global variable %s, and no other", base)
		}
		return v, &OptionError{Name: base, Known: known, Err: err}
	}
	for rest != "" {
		var err error
		if v, rest, err = v.member(rest); err != nil {
			return v, &OptionError{Err: fmt.Errorf("set %s: %w", name, err)}
		}
	}
	return v, nil
}

// variables are the global variables of an object: those that other files may use, and the
// static ones that BTF knows. What they hold is the object's own afterwards.
func variables(spec *ebpf.CollectionSpec) map[string]variable {
	all := map[string]variable{}
	for section, m := range spec.Maps {
		ds, ok := m.Value.(*btf.Datasec)
		data := contents(m)
		if !ok || data == nil {
			continue
		}
		for _, info := range ds.Vars {
			v, ok := info.Type.(*btf.Var)
			if ok && uint64(info.Offset)+uint64(info.Size) <= uint64(len(data)) {
				all[v.Name] = variable{v.Name, data[info.Offset:][:info.Size], v.Type, section}
			}
		}
	}
	// The library writes these over the sections at last.
	for name, v := range spec.Variables {
		known := variable{name: name, data: v.Value, section: v.SectionName}
		if v.Type != nil {
			known.kind = v.Type.Type
		}
		all[name] = known
	}
	return all
}

// contents are the bytes of a data section; nil when the map is another.
func contents(m *ebpf.MapSpec) []byte {
	if m.Type != ebpf.Array || m.MaxEntries != 1 || len(m.Contents) != 1 {
		return nil
	}
	data, _ := m.Contents[0].Value.([]byte)
	return data
}

// member goes one step of a path like .port or [2].
func (v variable) member(path string) (_ variable, rest string, err error) {
	none := variable{}
	if v.kind == nil {
		return none, "", fmt.Errorf("the object has no BTF, which would say what is in %s", v.name)
	}
	end := len(path)
	if i := strings.IndexAny(path[1:], ".["); i >= 0 {
		end = i + 1
	}
	step, rest := path[:end], path[end:]
	offset, kind := uint64(0), btf.Type(nil)
	if inner, ok := strings.CutPrefix(step, "["); ok {
		a, isArray := btf.UnderlyingType(v.kind).(*btf.Array)
		i, errNumber := strconv.ParseUint(strings.TrimSuffix(inner, "]"), 10, 32)
		switch {
		case !isArray:
			return none, "", fmt.Errorf("%s is no array", v.name)
		case errNumber != nil || !strings.HasSuffix(inner, "]"):
			return none, "", fmt.Errorf("%s is no index", step)
		case i >= uint64(a.Nelems):
			return none, "", fmt.Errorf("%s has %d elements", v.name, a.Nelems)
		}
		size, errSize := btf.Sizeof(a.Type)
		if errSize != nil {
			return none, "", errSize
		}
		offset, kind = i*uint64(size), a.Type
	} else if offset, kind, err = memberOf(v, step[1:]); err != nil {
		return none, "", err
	}
	size, err := btf.Sizeof(kind)
	if err != nil {
		return none, "", err
	}
	if offset+uint64(size) > uint64(len(v.data)) {
		return none, "", fmt.Errorf("%s ends beyond %s", step, v.name)
	}
	return variable{v.name + step, v.data[offset:][:size], kind, v.section}, rest, nil
}

// memberOf finds a member of a structure or a union.
func memberOf(v variable, name string) (offset uint64, kind btf.Type, err error) {
	var members []btf.Member
	switch t := btf.UnderlyingType(v.kind).(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	default:
		return 0, nil, fmt.Errorf("%s is no structure", v.name)
	}
	var names []string
	for _, m := range members {
		if m.Name == name && m.BitfieldSize > 0 {
			return 0, nil, fmt.Errorf("%s.%s is a bit field: give the whole of %s in hex", v.name, name, v.name)
		}
		if m.Name == name {
			return uint64(m.Offset.Bytes()), m.Type, nil
		}
		names = append(names, m.Name)
	}
	return 0, nil, fmt.Errorf("%s has no member %s: it has %s", v.name, name, listed(names))
}

// encode writes a value as size bytes of type t, which is nil when it is not known.
func encode(t btf.Type, size int, value string) ([]byte, error) {
	switch t := btf.UnderlyingType(orVoid(t)).(type) {
	case *btf.Int:
		if t.Encoding == btf.Bool {
			return encodeBool(size, value)
		}
		return encodeInt(size, t.Encoding == btf.Signed, t.Encoding != btf.Unsigned && size == 1, value)
	case *btf.Enum:
		for _, v := range t.Values {
			if v.Name == value {
				return number(new(big.Int).SetUint64(v.Value), size), nil
			}
		}
		b, err := encodeInt(size, t.Signed, false, value)
		if err != nil {
			var names []string
			for _, v := range t.Values {
				names = append(names, v.Name)
			}
			err = fmt.Errorf("%w, and none of %s", err, listed(names))
		}
		return b, err
	case *btf.Void: // without BTF
		if b, err := encodeBytes(nil, size, value); err == nil && (size > 8 || !strings.HasPrefix(value, "0x")) {
			return b, nil
		}
		if size == 1 || size == 2 || size == 4 || size == 8 {
			return encodeInt(size, true, false, value)
		}
		return encodeBytes(nil, size, value)
	case *btf.Array:
		return encodeBytes(t, size, value)
	case *btf.Struct, *btf.Union:
		return encodeBytes(nil, size, value)
	}
	return nil, fmt.Errorf("a variable of type %v cannot be set", t)
}

func orVoid(t btf.Type) btf.Type {
	if t == nil {
		return &btf.Void{}
	}
	return t
}

func encodeBool(size int, value string) ([]byte, error) {
	b := make([]byte, size)
	switch value {
	case "true", "1":
		b[0] = 1
	case "false", "0":
	default:
		return nil, fmt.Errorf("%q is neither true nor false", value)
	}
	return b, nil
}

// encodeInt writes a whole number, which must fit: as a signed number or as bits.
func encodeInt(size int, signed, char bool, value string) ([]byte, error) {
	if c, ok := strings.CutPrefix(value, "'"); ok && size == 1 && len(c) == 2 && c[1] == '\'' {
		return []byte{c[0]}, nil
	}
	if b, err := encodeAddress(size, value); err == nil {
		return b, nil
	}
	n, ok := new(big.Int).SetString(value, 0)
	if !ok || strings.Contains(value, "_") {
		return nil, fmt.Errorf("%q is no whole number", value)
	}
	least, most := new(big.Int), new(big.Int).Lsh(big.NewInt(1), uint(8*size)) // most is one too many
	if signed || char {
		least.Neg(new(big.Int).Rsh(most, 1))
		// Bits beyond the largest signed number are written in hex: 0xffffffff is -1.
		if !char && !strings.HasPrefix(strings.ToLower(value), "0x") {
			most.Rsh(most, 1)
		}
	}
	if n.Cmp(least) < 0 || n.Cmp(most) >= 0 {
		return nil, fmt.Errorf("%s does not fit: %s to %s do", value, least, new(big.Int).Sub(most, big.NewInt(1)))
	}
	return number(n, size), nil
}

// number is a number in the machine's order of bytes, negative ones as two's complement.
func number(n *big.Int, size int) []byte {
	bits := new(big.Int).And(n, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*size)), big.NewInt(1)))
	b := bits.FillBytes(make([]byte, size)) // big endian
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		slices.Reverse(b)
	}
	return b
}

var errNoAddress = errors.New("no address")

// encodeAddress writes an address in network order: IPv4 as 4 bytes, IPv6 as 16, Ethernet as 6.
func encodeAddress(size int, value string) ([]byte, error) {
	if mac, err := net.ParseMAC(value); err == nil && len(mac) == size && size == 6 {
		return mac, nil
	}
	if ip, err := netip.ParseAddr(value); err == nil && ip.Zone() == "" && ip.BitLen() == 8*size {
		return ip.AsSlice(), nil
	}
	return nil, errNoAddress
}

// encodeBytes writes hex digits, an address, or a string for arrays of char.
func encodeBytes(a *btf.Array, size int, value string) ([]byte, error) {
	if b, err := encodeAddress(size, value); err == nil {
		return b, nil
	}
	if digits, ok := strings.CutPrefix(value, "0x"); ok {
		b, err := hex.DecodeString(digits)
		if err != nil {
			return nil, fmt.Errorf("%.40q is not hex of whole bytes", value)
		}
		if len(b) != size {
			return nil, fmt.Errorf("%d bytes are given, %d are wanted", len(b), size)
		}
		return b, nil
	}
	if a != nil {
		if element, ok := btf.UnderlyingType(a.Type).(*btf.Int); ok && element.Size == 1 {
			text := value
			if unquoted, err := strconv.Unquote(value); err == nil && strings.HasPrefix(value, `"`) {
				text = unquoted
			}
			if len(text) >= size {
				return nil, fmt.Errorf("%q has %d bytes: %d and a zero fit", text, len(text), size-1)
			}
			return append([]byte(text), make([]byte, size-len(text))...), nil
		}
	}
	return nil, fmt.Errorf("%.40q is not the %d bytes that are wanted, in hex: 0x00…", value, size)
}
