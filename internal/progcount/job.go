package progcount

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/unthunk/unthunk/internal/progcost"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/prog"
)

// Job is a program to count, on which packets.
type Job struct {
	// Program is the object with all that its loader does.
	Program *program.Packed
	// Target is what the user named.
	Target string
	// Packets are run in their order; Source says where they come from.
	Packets *prog.Packets
	Source  record.PacketSource
	// Metadata stands before each packet.
	Metadata []byte
	// By divides the packets into rows.
	By progcost.By
}

// Hash is the beginning of a SHA-256 of packets with their lengths, in hexadecimal digits.
func Hash(packets *prog.Packets) string {
	all := sha256.New()
	for _, frame := range packets.Frames {
		all.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(frame))))
		all.Write(frame)
	}
	return hex.EncodeToString(all.Sum(nil)[:8])
}

// Limits of a job.
const (
	// DefaultPackets is how many packets of a file are counted: each is exact, and more make the mean of the same traffic
	// no better known than a thousand do.
	DefaultPackets = 1024
	// MaxPackets is how many can be.
	MaxPackets = 16384
	// maxBytes is how many bytes packets may have together.
	maxBytes = 64 << 20
)

// NoFragments says why packets above [prog.MaxBuffer] are left out of a job.
const NoFragments = "in fragments, which are not counted in a guest"

// Validate returns an error in one line when the job cannot be done.
func (j *Job) Validate() error {
	bytes := 0
	for _, frame := range j.Packets.Frames {
		bytes += len(frame)
	}
	switch n := len(j.Packets.Frames); {
	case n == 0:
		return errors.New("no packet is to be counted")
	case n > MaxPackets:
		return fmt.Errorf("%d packets: at most %d are counted in a guest", n, MaxPackets)
	case bytes > maxBytes:
		return fmt.Errorf("packets of %d MiB: at most %d MiB are counted in a guest", bytes>>20, maxBytes>>20)
	case len(j.Metadata)%4 != 0 || len(j.Metadata) > prog.MaxMetadata:
		return fmt.Errorf("metadata of %d bytes: up to %d, in steps of 4", len(j.Metadata), prog.MaxMetadata)
	case !slices.Contains(progcost.Bys(), j.By):
		return fmt.Errorf("rows by %q: by verdict, flow, length or packet", j.By)
	}
	return nil
}

// Where the guest has what the host put there.
const (
	dir        = "/prog/"
	jobFile    = dir + "job.json"
	objectFile = dir + "object.o"
	packetFile = dir + "packets"
)

// guestJob is the job file.
type guestJob struct {
	Name     string
	Options  program.Options
	Metadata []byte
}

// Files are what goes into the guest: path there → what is in it.
func (j *Job) Files() (map[string][]byte, error) {
	files := map[string][]byte{objectFile: j.Program.Object, packetFile: packed(j.Packets.Frames)}
	g := guestJob{Name: j.Program.Name, Options: j.Program.Options, Metadata: j.Metadata}
	g.Options.Maps = map[string]string{}
	for i, name := range slices.Sorted(maps.Keys(j.Program.Dumps)) {
		path := fmt.Sprintf("%smap-%d.json", dir, i)
		g.Options.Maps[name], files[path] = path, j.Program.Dumps[name]
	}
	b, err := json.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("write job: %w", err)
	}
	files[jobFile] = b
	return files, nil
}

// packed are frames, each with its length before it.
func packed(frames [][]byte) (b []byte) {
	for _, frame := range frames {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
		b = append(b, frame...)
	}
	return b
}

// unpacked is what packed was made of.
func unpacked(b []byte) (frames [][]byte, err error) {
	for len(b) > 0 {
		if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
			return nil, errors.New("the packets end within one")
		}
		n := binary.LittleEndian.Uint32(b)
		frames, b = append(frames, b[4:][:n]), b[4+n:]
	}
	return frames, nil
}

// readJob reads what the host put into this guest.
func readJob() (g guestJob, packets *prog.Packets, err error) {
	b, err := os.ReadFile(jobFile)
	if err != nil {
		return g, nil, fmt.Errorf("read job: %w", err)
	}
	if err := json.Unmarshal(b, &g); err != nil {
		return g, nil, fmt.Errorf("read job: %w", err)
	}
	if b, err = os.ReadFile(packetFile); err != nil {
		return g, nil, fmt.Errorf("read packets: %w", err)
	}
	frames, err := unpacked(b)
	return g, &prog.Packets{Frames: frames, Seen: len(frames)}, err
}
