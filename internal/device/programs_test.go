package device

import (
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// attribute is one as the kernel writes it.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// message is that of device 7, "eth0", with XDP attributes.
func message(xdp ...[]byte) []byte {
	b := append([]byte{0, 0, 1, 0}, number(7)...)
	b = append(b, make([]byte, 8)...)
	b = append(b, attribute(unix.IFLA_IFNAME, []byte("eth0\x00"))...)
	var nested []byte
	for _, a := range xdp {
		nested = append(nested, a...)
	}
	return append(b, attribute(unix.IFLA_XDP|unix.NLA_F_NESTED, nested)...)
}

func TestParseLink(t *testing.T) {
	t.Parallel()
	attached, id := attribute(2, []byte{4}), attribute(4, number(1))
	native, generic, offloaded := attribute(5, number(11)), attribute(6, number(12)), attribute(7, number(13))
	for _, tt := range []struct {
		name string
		b    []byte
		want WithPrograms
		err  error
	}{
		{"none", message(attribute(2, []byte{0})), WithPrograms{"eth0", 7, nil}, nil},
		{"native", message(attached, id, native), WithPrograms{"eth0", 7, []Program{{11, "native"}}}, nil},
		{"all modes", message(attached, generic, native, offloaded),
			WithPrograms{"eth0", 7, []Program{{12, "generic"}, {11, "native"}, {13, "offloaded"}}}, nil},
		{"four", message(generic, native, offloaded, native), WithPrograms{}, errLink},
		{"a short number", message(attribute(5, []byte{1})), WithPrograms{}, errLink},
		{"cut", message(native)[:38], WithPrograms{}, errLink},
		{"no header", make([]byte, 15), WithPrograms{}, errLink},
	} {
		got, err := parseLink(tt.b)
		if !errors.Is(err, tt.err) || err == nil && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v, want %+v, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(message())
	f.Add(message(attribute(2, []byte{1}), attribute(4, number(1)), attribute(5, number(1))))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseLink(b)
		if err == nil && (len(d.Programs) > len(modes) || len(d.Name) > len(b)) {
			t.Errorf("%+v of %d bytes", d, len(b))
		}
	})
}
