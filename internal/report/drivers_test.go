package report

import (
	"bytes"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestDriversGolden(t *testing.T) {
	t.Parallel()
	rows := []record.DriverRow{
		{Name: "ixgbe", Release: "6.12.1-amd64", Xmit: "ixgbe_xdp_xmit", Return: "each",
			DMA: true, Receive: record.DriverCalls{Maps: 2, Unmaps: 5, Syncs: 6},
			Transmit: record.DriverCalls{Maps: 1}},
		{Name: "mlx5_core", Release: "6.12.1-amd64", Xmit: "mlx5e_xdp_xmit", PagePool: true, Return: "bulk",
			DMA: true, Poll: record.DriverCalls{Indirect: 18}, Receive: record.DriverCalls{Syncs: 13},
			Transmit: record.DriverCalls{Indirect: 1, Gathers: 2}},
		{Name: "ixgbevf\x1b", Release: "6.12.1-amd64", Return: "own"},
		{Name: "veth", Release: "6.12.1-amd64", Xmit: "veth_ndo_xdp_xmit", PagePool: true, Return: "bulk"},
	}
	doc := &record.Document[record.DriverRow]{Rows: rows, Warnings: []record.Warning{{Text: "open x.ko: truncated"}}}
	var b bytes.Buffer
	if err := Drivers(&b, Options{Width: 80}, doc); err != nil {
		t.Fatal(err)
	}
	rows[3].Release = "6.1.0-amd64"
	if err := Drivers(&b, Options{Width: 80}, doc); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	reporttest.Golden(t, "drivers.txt", b.String())
}
