package gdb

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrEnded is returned once the guest has ended.
var ErrEnded = errors.New("the guest has ended")

// Limits on what the stub may say, in bytes. QEMU's own limit of a packet is 4 KiB in 7.2,
// 128 KiB in newer ones.
const (
	maxPacket = 128 << 10
	maxOutput = 64 << 10 // of a command of the monitor
	maxNoise  = 64 << 10 // between two packets
)

// ErrUnmapped is returned for memory that is not mapped.
var ErrUnmapped = errors.New("not mapped in the guest")

// maxMemory is how much [Client.Memory] asks for at once, in bytes: QEMU 7.2 refuses more than
// 2048.
const maxMemory = 1024

// Client is one end of a connection to a stub. The guest stands still except in
// [Client.Continue]. It is not safe for concurrent use; closing the connection ends each of
// its methods with an error.
type Client struct {
	conn io.ReadWriter
	r    *bufio.Reader
}

// New is the client of a connection. The guest is stopped already: QEMU was started with -S.
func New(conn io.ReadWriter) *Client { return &Client{conn, bufio.NewReaderSize(conn, 4096)} }

// Break makes the guest stop before it executes the instruction at an address.
func (c *Client) Break(addr uint64) error { return c.okay(fmt.Sprintf("Z0,%x,1", addr)) }

// Unbreak takes a breakpoint away. A guest that stands at one runs into it again when it is
// continued.
func (c *Client) Unbreak(addr uint64) error { return c.okay(fmt.Sprintf("z0,%x,1", addr)) }

// Continue lets the guest run until it reaches a breakpoint. It returns [ErrEnded] when the
// guest ends before.
func (c *Client) Continue() error {
	reply, err := c.ask("c")
	if err != nil {
		return err
	}
	if len(reply) > 0 && (reply[0] == 'T' || reply[0] == 'S') {
		return nil
	}
	return unexpected("c", reply)
}

// Monitor runs a command of QEMU's monitor and returns what it prints, nothing as a rule.
func (c *Client) Monitor(command string) (string, error) {
	reply, err := c.ask("qRcmd," + hex.EncodeToString([]byte(command)))
	var out []byte
	for {
		if err != nil {
			return "", err
		}
		text, printed := bytes.CutPrefix(reply, []byte("O"))
		if !printed || string(reply) == "OK" {
			break
		}
		text, err = hex.DecodeString(string(text))
		if err != nil {
			return "", unexpected(command, reply)
		}
		if out = append(out, text...); len(out) > maxOutput {
			return "", fmt.Errorf("QEMU prints more than %d KiB for %s", maxOutput>>10, command)
		}
		reply, err = c.receive()
	}
	if string(reply) != "OK" {
		return "", unexpected(command, reply)
	}
	return strings.TrimSpace(string(out)), nil
}

// Memory reads from the address space that the guest is in. It returns [ErrUnmapped] where a
// part of that is not mapped.
func (c *Client) Memory(p []byte, addr uint64) error {
	for len(p) > 0 {
		n := min(len(p), maxMemory)
		command := fmt.Sprintf("m%x,%x", addr, n)
		reply, err := c.ask(command)
		if err != nil {
			return err
		}
		if string(reply) == "E14" { // EFAULT
			return ErrUnmapped
		}
		if len(reply) != 2*n {
			return unexpected(command, reply)
		}
		if _, err := hex.Decode(p, reply); err != nil {
			return unexpected(command, reply)
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// okay sends a command whose answer is OK.
func (c *Client) okay(command string) error {
	reply, err := c.ask(command)
	if err == nil && string(reply) != "OK" {
		err = unexpected(command, reply)
	}
	return err
}

func unexpected(command string, reply []byte) error {
	return fmt.Errorf("QEMU's gdbstub answers %s by %.60q", command, reply)
}

// ask sends a command and returns the first packet that comes back.
func (c *Client) ask(command string) ([]byte, error) {
	if _, err := fmt.Fprintf(c.conn, "$%s#%02x", command, sum([]byte(command))); err != nil {
		return nil, ended(err)
	}
	return c.receive()
}

// receive reads a packet and acknowledges it. What lies between packets are the stub's own
// acknowledgments: the connection loses nothing, so that nobody asks for a packet again.
func (c *Client) receive() ([]byte, error) {
	for noise := 0; ; noise++ {
		b, err := c.r.ReadByte()
		if err != nil {
			return nil, ended(err)
		}
		if b == '$' {
			break
		}
		if noise > maxNoise {
			return nil, fmt.Errorf("QEMU's gdbstub sends no packet in %d KiB", maxNoise>>10)
		}
	}
	var body []byte
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return nil, ended(err)
		}
		if b == '#' {
			break
		}
		if len(body) == maxPacket {
			return nil, fmt.Errorf("QEMU's gdbstub sends a packet of more than %d KiB", maxPacket>>10)
		}
		body = append(body, b)
	}
	var check [2]byte
	if _, err := io.ReadFull(c.r, check[:]); err != nil {
		return nil, ended(err)
	}
	if string(check[:]) != fmt.Sprintf("%02x", sum(body)) {
		return nil, fmt.Errorf("QEMU's gdbstub sends a packet with a wrong sum: %.60q", body)
	}
	if len(body) > 0 && (body[0] == 'W' || body[0] == 'X') { // it exited, or was killed
		return nil, ErrEnded
	}
	if _, err := c.conn.Write([]byte("+")); err != nil {
		return nil, ended(err)
	}
	return unescape(body), nil
}

// unescape takes the escapes of a packet away; QEMU compresses none.
func unescape(body []byte) []byte {
	if !bytes.ContainsRune(body, '}') {
		return body
	}
	out := body[:0]
	for i := 0; i < len(body); i++ {
		if body[i] == '}' && i+1 < len(body) {
			i++
			body[i] ^= 0x20
		}
		out = append(out, body[i])
	}
	return out
}

// ended is the end of a connection as the end of the guest.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || broken(err) {
		return ErrEnded
	}
	return fmt.Errorf("speak with QEMU's gdbstub: %w", err)
}

// sum is the checksum of a packet.
func sum(b []byte) (s byte) {
	for _, x := range b {
		s += x
	}
	return s
}
