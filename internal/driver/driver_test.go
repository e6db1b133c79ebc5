package driver

import (
	"bytes"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ktext"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// debian is one of Debian's, and its types.
func debian(t testing.TB, series string) (*ktext.Tree, *btf.Spec) {
	t.Helper()
	tree, err := ktext.OpenTree(t.Context(), guesttest.Kernel(t, series))
	if err != nil {
		t.Fatal(err)
	}
	img, err := ktext.OpenFile(t.Context(), tree.Vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	types, err := btf.LoadSpecFromReader(bytes.NewReader(img.BTF))
	if err != nil {
		t.Fatal(err)
	}
	return tree, types
}

// What drivers of two kernels do, as their sources say.
func TestInspect(t *testing.T) {
	for _, test := range []struct {
		series, name, xmit, poll string
		pool                     bool
		back                     string
		// maps tells whether receive maps buffers, mapsPool whether those are of
		// its page pool, transmit how many maps ndo_xdp_xmit makes.
		maps, mapsPool bool
		transmit       int
	}{
		{"6.1", "veth", "veth_ndo_xdp_xmit", "veth_poll", false, "each", false, false, 0},
		{"6.1", "virtio_net", "virtnet_xdp_xmit", "virtnet_poll", false, "each", false, false, 0},
		// mlx5e_page_alloc_pool maps what page_pool_dev_alloc_pages gives, until 6.3.
		{"6.1", "mlx5_core", "mlx5e_xdp_xmit", "mlx5e_napi_poll", true, "bulk", true, true, 1},
		{"6.1", "ixgbevf", "", "ixgbevf_poll", false, "own", true, false, 0},
		{"6.1", "ena", "ena_xdp_xmit", "ena_io_poll", false, "each", true, false, 1},
		// mana_get_rxfrag maps what page_pool_dev_alloc_pages gives.
		{"6.1", "mana", "mana_xdp_xmit", "mana_poll", true, "own", true, true, 3},
		{"6.12", "mana", "mana_xdp_xmit", "mana_poll", true, "own", true, true, 3},
		{"6.12", "veth", "veth_ndo_xdp_xmit", "veth_poll", true, "each", false, false, 0},
		{"6.12", "ionic", "ionic_xdp_xmit", "ionic_rx_napi", true, "bulk", false, false, 2},
		{"6.12", "vmxnet3", "vmxnet3_xdp_xmit", "vmxnet3_poll", true, "bulk", true, false, 1},
		{"6.12", "gve", "gve_xdp_xmit", "gve_napi_poll", false, "each", true, false, 0},
		// netvsc_send_pkt maps, netvsc_send_tx_complete unmaps.
		{"6.12", "hv_netvsc", "netvsc_ndoxdp_xmit", "netvsc_poll", false, "own", false, false, 1},
	} {
		t.Run(test.series+"/"+test.name, func(t *testing.T) {
			tree, types := debian(t, test.series)
			img, err := ktext.OpenFile(t.Context(), tree.Modules[test.name])
			if err != nil {
				t.Fatal(err)
			}
			row, err := Inspect(t.Context(), img, types)
			if err != nil {
				t.Fatal(err)
			}
			// All of a row that is not a count.
			type found struct {
				Name, Release, Xmit, Return    string
				PagePool, MapsPool, ReceiveMap bool
				TransmitMaps                   int
			}
			want := found{test.name, tree.Release, test.xmit, test.back, test.pool, test.mapsPool, test.maps, test.transmit}
			got := found{row.Name, row.Release, row.Xmit, row.Return, row.PagePool, row.MapsPool, row.Receive.Maps > 0, row.Transmit.Maps}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("row (-want +got):\n%s", diff)
			}
			if !strings.Contains(strings.Join(row.Polls, " "), test.poll) {
				t.Errorf("polls %v, want %s", row.Polls, test.poll)
			}
			if row.Poll.Functions == 0 {
				t.Error("the polls reach no function")
			}
			if (row.Xmit != "") != (row.Transmit.Functions > 0) {
				t.Errorf("ndo_xdp_xmit %q reaches %d functions", row.Xmit, row.Transmit.Functions)
			}
		})
	}
}

// The functions that ndo_xdp_xmit of a small driver reaches, and what they call,
// against objdump.
func TestInspectOracle(t *testing.T) {
	tree, types := debian(t, "6.1")
	img, err := ktext.OpenFile(t.Context(), tree.Modules["veth"])
	if err != nil {
		t.Fatal(err)
	}
	row, err := Inspect(t.Context(), img, types)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("objdump", "-dr", "--no-show-raw-insn", tree.Modules["veth"]).Output()
	if err != nil {
		t.Log(err)
		testutil.Missing(t, "objdump")
	}
	// By function: what it calls or jumps to, as relocations say.
	calls := make(map[string][]string)
	name := ""
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if _, symbol, ok := strings.Cut(line, " <"); ok && strings.HasSuffix(line, ">:") {
			name = strings.TrimSuffix(symbol, ">:")
		}
		// A call within a section has no relocation.
		if _, target, ok := strings.Cut(line, "R_X86_64_PLT32"); ok {
			target, _, _ = strings.Cut(strings.TrimSpace(target), "-0x4")
			calls[name] = append(calls[name], target)
		} else if _, target, ok := strings.Cut(line, " <"); ok &&
			(strings.Contains(line, "call ") || strings.Contains(line, "jmp ")) && !strings.Contains(target, "+") {
			calls[name] = append(calls[name], strings.TrimSuffix(target, ">"))
		}
	}
	thunks := func(root string) (n int) {
		seen := make(map[string]bool)
		for todo := []string{root}; len(todo) > 0; {
			f := todo[0]
			todo = todo[1:]
			if seen[f] {
				continue
			}
			seen[f] = true
			for _, to := range calls[f] {
				if strings.HasPrefix(to, "__x86_indirect_thunk_") {
					n++
				} else if calls[to] != nil {
					todo = append(todo, to)
				}
			}
		}
		return n
	}
	if want := thunks("veth_ndo_xdp_xmit"); row.Transmit.Indirect != want {
		t.Errorf("ndo_xdp_xmit reaches %d indirect branches, objdump shows %d", row.Transmit.Indirect, want)
	}
	if want := thunks("veth_poll"); row.Poll.Indirect != want || want == 0 {
		t.Errorf("the poll reaches %d indirect branches, objdump shows %d", row.Poll.Indirect, want)
	}
}

func TestNotXDP(t *testing.T) {
	tree, types := debian(t, "6.1")
	img, err := ktext.OpenFile(t.Context(), tree.Modules["dummy"])
	if err != nil {
		t.Log(err)
		testutil.Missing(t, "a module without XDP")
	}
	if _, err := Inspect(t.Context(), img, types); !errors.Is(err, ErrNotXDP) {
		t.Error(err)
	}
}

func TestLeft(t *testing.T) {
	for _, test := range []struct {
		row  record.DriverRow
		want string
	}{
		{record.DriverRow{Xmit: "x", PagePool: true, Return: "bulk"}, ""},
		{record.DriverRow{Return: "each", Receive: record.DriverCalls{Maps: 1}}, "ndo_xdp_xmit, bulk return, keep RX mapped"},
		{record.DriverRow{Xmit: "x", PagePool: true, Return: "own", Poll: record.DriverCalls{Indirect: 1},
			Receive: record.DriverCalls{Maps: 1}, Transmit: record.DriverCalls{Maps: 1}}, "gather TX maps, indirect calls"},
		{record.DriverRow{Xmit: "x", PagePool: true, MapsPool: true, Return: "bulk", Receive: record.DriverCalls{Maps: 1}}, "keep RX mapped"},
		{record.DriverRow{Xmit: "x", Return: "bulk", Poll: record.DriverCalls{Maps: 1}}, ""},
		{record.DriverRow{Xmit: "x", PagePool: true, Return: "bulk", Transmit: record.DriverCalls{Maps: 1, Gathers: 1}}, ""},
	} {
		if got := test.row.LeftText(); got != test.want {
			t.Errorf("%+v: %q, want %q", test.row, got, test.want)
		}
	}
}

// Modules of arm64 are read as those of x86-64 are: the same drivers do the same.
func TestInspectARM64(t *testing.T) {
	rows := make(map[string]map[string]*record.DriverRow)
	for _, kernel := range []string{"debian:6.12-cloud", "debian:6.12-cloud-arm64"} {
		tree, err := ktext.OpenTree(t.Context(), guesttest.Named(t, kernel).Dir)
		if err != nil {
			t.Fatal(err)
		}
		rows[kernel] = make(map[string]*record.DriverRow)
		for _, name := range []string{"veth", "virtio_net", "ena", "tun", "vmxnet3"} {
			img, err := ktext.OpenFile(t.Context(), tree.Modules[name])
			if err != nil {
				t.Fatal(err)
			}
			if rows[kernel][name], err = Inspect(t.Context(), img, nil); err != nil {
				t.Fatalf("%s of %s: %v", name, kernel, err)
			}
		}
	}
	for name, want := range rows["debian:6.12-cloud"] {
		got := rows["debian:6.12-cloud-arm64"][name]
		if got.Xmit != want.Xmit || got.Return != want.Return || got.PagePool != want.PagePool || got.DMA != want.DMA ||
			len(got.Polls) == 0 || !slices.Equal(want.Polls, got.Polls) || got.Transmit.Maps != want.Transmit.Maps {
			t.Errorf("%s: %+v\non x86-64 %+v", name, got, want)
		}
		if got.Poll.Indirect != want.Poll.Indirect || got.Transmit.Indirect != want.Transmit.Indirect {
			t.Errorf("%s: %d + %d indirect branches, on x86-64 %d + %d", name, got.Poll.Indirect, got.Transmit.Indirect,
				want.Poll.Indirect, want.Transmit.Indirect)
		}
	}
}
