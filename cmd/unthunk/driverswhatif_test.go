package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/whatif"
)

// savedWhatIf are records that an estimate is made from.
func savedWhatIf(name string) string {
	return filepath.Join("..", "..", "internal", "whatif", "testdata", name)
}

func TestDriversWhatIfRefuses(t *testing.T) {
	lab, prices := savedWhatIf("lab.json"), savedWhatIf("tax.json")
	dir := t.TempDir()
	cut := filepath.Join(dir, "cut.json")
	if b, err := os.ReadFile(lab); err != nil || os.WriteFile(cut, b[:len(b)/2], 0o600) != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(lab)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(name, old, to string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, bytes.ReplaceAll(b, []byte(old), []byte(to)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	veth := changed("veth.json", `"nic": "igb"`, `"nic": "veth"`)
	older := changed("older.json", `"release": "6.12.`, `"release": "6.11.`)
	same := filepath.Join(dir, "same.json")
	if err := os.WriteFile(same, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	kernel := guesttest.Kernel(t, "6.12")
	refuses(t, "drivers", []refused{
		{"counts alone", []string{kernel, "--counts", lab}, exitUsage, "go with --what-if"},
		{"prices alone", []string{kernel, "--prices", prices}, exitUsage, "go with --what-if"},
		{"setup alone", []string{kernel, "--dma", "direct"}, exitUsage, "go with --what-if"},
		{"no such setup", []string{kernel, "--what-if", "--dma", "iommu-pt"}, exitUsage, `"iommu-pt" is not one of direct, swiotlb, iommu-lazy`},
		{"counts of tax", []string{kernel, "--what-if", "--counts", prices, "--prices", prices}, exitUsage,
			"is a record of tax: give one of lab"},
		{"prices of lab", []string{kernel, "--what-if", "--counts", lab, "--prices", lab}, exitUsage,
			"lab.json, of lab, lacks bpf-prog and direct-call: make one by unthunk tax --pair bpf-prog,direct-call --save FILE"},
		{"prices of run", []string{kernel, "--what-if", "--prices", filepath.Join("testdata", "saved", "run.json")}, exitUsage,
			"run.json, of run, lacks direct-call: make one by unthunk tax --pair bpf-prog,direct-call --save FILE"},
		{"no such driver", []string{kernel, "--what-if", "--prices", prices, "--driver", "ena,e1000"}, exitUsage,
			"--driver e1000 is not one of ena, "},
		{"counts of nothing", []string{kernel, "--what-if", "--counts", veth, "--prices", prices}, exitUsage,
			"it has no row of a redirect by igb, virtio, virtio-no-indirect, vmxnet3 whose"},
		{"counts of another kernel", []string{kernel, "--what-if", "--counts", older, "--prices", prices, "--dma", "direct,iommu-lazy"},
			exitUsage, "older.json: it has no row of Linux 6.12 with DMA direct, iommu-lazy"},
		{"no counts", []string{kernel, "--what-if", "--counts", "none.json", "--prices", prices}, exitFailed, "none.json"},
		{"counts cut short", []string{kernel, "--what-if", "--counts", cut, "--prices", prices}, exitFailed, "cut.json"},
		{"over what is read", []string{kernel, "--what-if", "--counts", same, "--prices", prices, "--save", same}, exitUsage, "would overwrite"},
	})
}

// An estimate with saved counts and prices needs no root. Counts take the place of code for the driver that was counted, in
// setups in which it was.
func TestDriversWhatIf(t *testing.T) {
	kernel := guesttest.Kernel(t, "6.12")
	file := filepath.Join(t.TempDir(), "what-if.json")
	args := []string{"drivers", kernel, "--what-if", "--counts", savedWhatIf("lab.json"), "--prices", savedWhatIf("tax.json")}
	code, stdout, stderr := unthunk(t, append(args, "--json", "--save", file)...)
	if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var doc record.WhatIf
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Kind != "what-if" || doc.Schema != record.Schema || doc.Call == nil || doc.DirectCall == nil || doc.Bulk != whatif.Bulk {
		t.Errorf("kind %q, schema %q, prices %v and %v, bulk %d", doc.Kind, doc.Schema, doc.Call, doc.DirectCall, doc.Bulk)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != stdout {
		t.Errorf("what is saved is not what is printed: %v", err)
	}
	found := false
	for _, row := range doc.Rows {
		if row.Labels["driver"] == "vmxnet3" && row.Labels["change"] == whatif.GatherTX && row.Labels["dma"] == record.DMAIOMMUStrict {
			found = true
			if row.Source != record.FromCode || row.Saving == nil || row.Saved.Indirect == nil || row.Saved.Indirect.High <= 0 {
				t.Errorf("%+v", row)
			}
		}
		if (row.Saving == nil) != (row.Refused != "") {
			t.Errorf("%s: saving %v, refused %q", row.Name, row.Saving, row.Refused)
		}
	}
	if !found {
		t.Error("no row of vmxnet3 behind a strict IOMMU")
	}
	code, stdout, stderr = unthunk(t, append(args, "--dma", "direct")...)
	if code != exitDone || stderr != "" || !strings.Contains(stdout, "\n\nAn estimate: ") || strings.Contains(stdout, "strict") {
		t.Errorf("exit code %d: %s%s", code, stderr, stdout)
	}
	// Without counts there is no number behind an IOMMU, and a note says how to get one.
	code, stdout, _ = unthunk(t, "drivers", kernel, "--what-if", "--prices", savedWhatIf("tax.json"), "--dma", "iommu-lazy")
	if code != exitDone || !strings.Contains(stdout, "unthunk lab debian:6.12 --nic igb,virtio,vmxnet3") || !strings.Contains(stdout, "?") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
}

// An estimate of drivers that are asked for begins with what to do first; where there is nothing, that is the answer.
func TestDriversWhatIfDriver(t *testing.T) {
	kernel := guesttest.Kernel(t, "6.12")
	args := []string{"drivers", kernel, "--what-if", "--counts", savedWhatIf("lab.json"), "--prices", savedWhatIf("tax.json"), "--driver"}
	code, stdout, stderr := unthunk(t, append(args, "vmxnet3")...)
	if code != exitDone || stderr != "" || !strings.HasPrefix(stdout, "For vmxnet3: first keep-tx-mapped, ") ||
		strings.Contains(stdout, "ena") || !strings.Contains(stdout, "bulk-return: it returns frames in bulk") {
		t.Errorf("exit code %d: %s%s", code, stderr, stdout)
	}
	code, stdout, stderr = unthunk(t, append(args, "tun")...)
	if code != exitDone || stderr != "" || !strings.HasPrefix(stdout, "For tun: with direct, ") {
		t.Errorf("exit code %d: %s%s", code, stderr, stdout)
	}
	code, stdout, stderr = unthunk(t, "drivers", kernel, "--driver", "virtio-net")
	if code != exitDone || stderr != "" || !strings.Contains(stdout, "virtio_net") || strings.Contains(stdout, "vmxnet3") {
		t.Errorf("exit code %d: %s%s", code, stderr, stdout)
	}
}

// An estimate of which no row has a number has answered nothing.
func TestDriversWhatIfUnpriced(t *testing.T) {
	kernel := guesttest.Kernel(t, "6.12")
	saved, err := record.Load(savedWhatIf("tax.json"))
	if err != nil {
		t.Fatal(err)
	}
	doc := saved.Tax()
	for i := range doc.Rows {
		if row := &doc.Rows[i]; row.Name == "direct-call" {
			row.With, row.Without, row.Price, row.Refused = nil, nil, nil, "too few rounds"
			row.Cycles, row.NsPerPacket = nil, nil
		}
	}
	file := filepath.Join(t.TempDir(), "tax.json")
	if b, err := json.Marshal(doc); err != nil || os.WriteFile(file, b, 0o600) != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := unthunk(t, "drivers", kernel, "--what-if", "--prices", file)
	if code != exitFailed || !strings.Contains(stderr, "no row has a number") ||
		!strings.Contains(stdout, "the price of a direct call was not measured: too few rounds") {
		t.Errorf("exit code %d: %s%s", code, stderr, stdout)
	}
}

// Without a record of prices they are measured, which takes rights; who has none is told so, and nothing is left.
func TestDriversWhatIfPrices(t *testing.T) {
	kernel := guesttest.Kernel(t, "6.12")
	testutil.Root(t)
	exe := build(t)
	code, stdout, stderr := limitedRun(t, exe, nobody, nil, "drivers "+kernel+" --what-if")
	if code != exitMissing || stdout != "" || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = unthunk(t, "drivers", kernel, "--what-if", "--dma", "direct", "--json")
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var doc record.WhatIf
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		t.Fatal(err)
	}
	// A busy machine may leave too few rounds for an interval.
	if doc.PriceOf != "the prices of this machine, measured in this run" || doc.DirectCall == nil && len(doc.Warnings) == 0 {
		t.Errorf("prices of %q, %v, %v: %v", doc.PriceOf, doc.Call, doc.DirectCall, doc.Warnings)
	}
}
