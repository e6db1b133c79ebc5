package report

import (
	"bytes"
	"testing"

	"github.com/unthunk/unthunk/internal/result"
)

func TestDriversGolden(t *testing.T) {
	rows := []result.DriverRow{
		{Name: "ixgbe", Release: "6.12.1-amd64", Xmit: "ixgbe_xdp_xmit", Return: "each",
			DMA: true, Receive: result.DriverCalls{Maps: 2, Unmaps: 5, Syncs: 6}, Transmit: result.DriverCalls{Maps: 1}},
		{Name: "mlx5_core", Release: "6.12.1-amd64", Xmit: "mlx5e_xdp_xmit", PagePool: true, Return: "bulk",
			DMA: true, Poll: result.DriverCalls{Indirect: 18}, Receive: result.DriverCalls{Syncs: 13}, Transmit: result.DriverCalls{Indirect: 1, Gathers: 2}},
		{Name: "ixgbevf\x1b", Release: "6.12.1-amd64", Return: "own"},
		{Name: "veth", Release: "6.12.1-amd64", Xmit: "veth_ndo_xdp_xmit", PagePool: true, Return: "bulk"},
	}
	doc := &result.Document[result.DriverRow]{Rows: rows, Warnings: []result.Warning{{Text: "open x.ko: truncated"}}}
	var b bytes.Buffer
	if err := Drivers(&b, Options{Width: 80}, doc); err != nil {
		t.Fatal(err)
	}
	rows[3].Release = "6.1.0-amd64"
	if err := Drivers(&b, Options{Width: 80}, doc); err != nil {
		t.Fatal(err)
	}
	fits(t, b.String(), 80)
	golden(t, "drivers.txt", b.String())
}
