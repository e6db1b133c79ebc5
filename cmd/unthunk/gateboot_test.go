package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// Real-mode code for the beginning of a kernel, 16 bits each. DX is the first serial port.
var (
	toSerial = []byte{0xba, 0xf8, 0x03}                   // mov $0x3f8,%dx
	forever  = []byte{0xeb, 0xfe}                         // jmp .
	rubbish  = []byte{0xee, 0xfe, 0xc0, 0xeb, 0xfb}       // out %al,(%dx); inc %al; jmp to the out
	resets   = []byte{0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe} // mov $0xfe,%al; out %al,$0x64: the keyboard controller resets
)

// prints is code that prints a text and runs on behind it.
func prints(text string) (code []byte) {
	for _, c := range []byte(text) {
		code = append(code, 0xb0, c, 0xee) // mov $c,%al; out %al,(%dx)
	}
	return code
}

// bzImage is a kernel whose header is right (Documentation/arch/x86/boot.rst of Linux, protocol 2.12) and that runs code.
func bzImage(code []byte) []byte {
	const setup, entry = 4, 0x268
	image := make([]byte, 512*(1+setup)+64<<10)
	image[0x1f1] = setup
	binary.LittleEndian.PutUint16(image[0x1fe:], 0xaa55)
	copy(image[0x200:], []byte{0xeb, entry - 0x202}) // jmp to the code
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(image[0x206:], 0x020c)
	const version = 0x800
	binary.LittleEndian.PutUint16(image[0x20e:], version-0x200)
	copy(image[version:], "0.0 (nobody@nowhere) #1\x00")
	image[0x236] = 1                                              // XLF_KERNEL_64
	image[0x211] = 1                                              // loaded high
	binary.LittleEndian.PutUint32(image[0x214:], 0x100000)        // where
	binary.LittleEndian.PutUint32(image[0x22c:], 0x7fffffff)      // the initramfs may be anywhere
	binary.LittleEndian.PutUint32(image[0x230:], 1<<20)           // alignment
	binary.LittleEndian.PutUint32(image[0x238:], 2047)            // command line
	binary.LittleEndian.PutUint32(image[0x260:], uint32(512<<10)) // room
	copy(image[entry:version], code)
	return image
}

// Kernels that never come up cannot be told, within the limit, and the last that they printed is shown.
func TestGateHopeless(t *testing.T) {
	if err := guest.Available(guest.AMD64); err != nil {
		testutil.SkipMissing(t, err)
	}
	random := make([]byte, 64<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	tests := []struct {
		name  string
		image []byte
		limit string
		want  []string // on standard output, or on standard error where no guest is booted
	}{
		// In 10 s a guest prints that also on a machine that is busy.
		{"waits for a secret", bzImage(slices.Concat(toSerial, prints("disk\r\n\x1b[31mpassphrase: "), forever)), "10s",
			[]string{"Cannot tell: ", "did not boot and finish within 10s", "The last lines of the guest:", "passphrase:"}},
		{"resets", bzImage(slices.Concat(toSerial, prints("bye\n"), resets)), "1m",
			[]string{"Cannot tell: ", "guest 0.0 ended after 0 of 1 commands", "\n  bye\n"}},
	}
	if !testing.Short() && os.Getenv("UNTHUNK_GUEST") != "" {
		tests = append(tests, []struct {
			name  string
			image []byte
			limit string
			want  []string
		}{
			{"prints rubbish", bzImage(slices.Concat(toSerial, rubbish)), "10m", []string{"Cannot tell: ", "it wrote more than 4 MiB"}},
			{"zeros", bzImage(nil), "2s", []string{"Cannot tell: ", "did not boot and finish within 2s"}},
			{"no header", random, "10s", []string{"neither a bzImage nor a vmlinux"}},
			{"cut off", bzImage(forever)[:0x400], "10s", []string{"read kernel"}},
		}...)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { hopeless(t, test.image, test.limit, test.want) })
	}
}

// kernelFolder is the folder of a package with an image, of a kernel that has veth in itself.
func kernelFolder(t *testing.T, image []byte) string {
	t.Helper()
	dir := t.TempDir()
	err := errors.Join(os.Mkdir(filepath.Join(dir, "boot"), 0o755), os.MkdirAll(filepath.Join(dir, "lib/modules/0.0"), 0o755),
		os.WriteFile(filepath.Join(dir, "boot/vmlinuz-0.0"), image, 0o600),
		os.WriteFile(filepath.Join(dir, "lib/modules/0.0/modules.builtin"), []byte("kernel/drivers/net/veth.ko\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func hopeless(t *testing.T, image []byte, limit string, want []string) {
	base, kernel := filepath.Join(t.TempDir(), "base.json"), kernelFolder(t, image)
	b, err := json.Marshal(recordtest.GateLab("debian:6.12-cloud"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(base, b, 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := unthunk(t, "gate", "--base", base, "--limit", limit, kernel)
	if code != exitCannotTell {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	if !strings.HasPrefix(stderr, "unthunk: cannot tell: ") && !strings.Contains(stderr, "\nunthunk: cannot tell: ") {
		t.Errorf("stderr: %s", stderr)
	}
	for _, text := range want {
		if !strings.Contains(strings.Join(strings.Fields(stdout+stderr), " "), strings.Join(strings.Fields(text), " ")) {
			t.Errorf("no %q in %s%s", text, stdout, stderr)
		}
	}
	if strings.Contains(stdout+stderr, "\x1b[31m") {
		t.Error("a guest speaks to the terminal")
	}
	code, stdout, _ = unthunk(t, "gate", "--base", base, "--limit", limit, "--json", kernel)
	if _, err := record.Parse([]byte(stdout)); err != nil || code != exitCannotTell {
		t.Errorf("%v, exit code %d: %s", err, code, stdout)
	}
}

// A real kernel that fails in each of these ways cannot be told; what it last printed says why.
func TestGateFailingKernel(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	const kernel = "debian:6.12-cloud"
	k, err := guest.Resolve(t.Context(), cache, kernel)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(k.Image)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(image) / 2; i < len(image)/2+4096; i++ { // in the payload
		image[i] ^= 0xff
	}
	corrupt := kernelFolder(t, image)
	if err := os.Rename(filepath.Join(corrupt, "lib/modules/0.0"), filepath.Join(corrupt, "lib/modules", k.Release)); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(recordtest.GateLab(kernel))
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(t.TempDir(), "base.json")
	if err := os.WriteFile(base, b, 0o600); err != nil {
		t.Fatal(err)
	}
	exe := build(t) // a test binary is no init
	for name, test := range map[string]struct{ kernel, line, limit, want string }{
		"panics":       {kernel, "rdinit=/none init=/none", "2m", "Kernel panic - not syncing"},
		"hangs":        {kernel, "rdinit=/none init=/none panic=0", "30s", "did not boot and finish within 30s"},
		"lacks memory": {kernel, "mem=48M", "10s", "did not boot and finish within 10s"},
		"does not load veth": {kernel, "module_blacklist=veth", "2m",
			`its last words: "init: load module /modules/veth.ko: operation not permitted"`},
		"is corrupt": {corrupt, "console=ttyS0", "10s", "did not boot and finish within 10s"},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			cmd := exec.Command(exe, "gate", "--base", base, "--limit", test.limit, "--append", test.line, test.kernel)
			out, err := cmd.CombinedOutput()
			t.Logf("%v: %s", time.Since(begun), out)
			if cmd.ProcessState.ExitCode() != exitCannotTell || !strings.Contains(strings.Join(strings.Fields(string(out)), " "), test.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
