package host

import "encoding/json"

// Fingerprint identifies the machine a number was measured on. A field that
// could not be seen is empty.
type Fingerprint struct {
	CPU           string            `json:"cpu"`
	Microcode     string            `json:"microcode"`
	Virtual       string            `json:"virtual"` // hypervisor, or "none"
	CPUs          int               `json:"cpus"`
	Kernel        string            `json:"kernel"` // release
	KernelBuild   string            `json:"kernel-build"`
	Compiler      string            `json:"compiler"`
	BootParams    string            `json:"boot-params"`    // those that matter
	Mitigations   map[string]string `json:"mitigations"`    // /sys/devices/system/cpu/vulnerabilities
	IndirectThunk string            `json:"indirect-thunk"` // as read from memory
	ReturnThunk   string            `json:"return-thunk"`   // as read from memory
	CallSites     string            `json:"call-sites"`     // "through thunks", "rewritten to call *reg", …
	CFI           string            `json:"cfi,omitempty"`  // "off", "kcfi", "fineibt,paranoid,bhi", …; as read from memory
	BPFJIT        string            `json:"bpf-jit"`
	BPFHarden     string            `json:"bpf-jit-harden"`
	SMT           string            `json:"smt"`
	Governor      string            `json:"governor"`
	Drivers       map[string]string `json:"drivers,omitempty"` // NIC name to driver, of NICs that took part
}

// MarshalJSON writes what could not be seen as null.
func (f Fingerprint) MarshalJSON() ([]byte, error) {
	type plain Fingerprint // without this method
	b, err := json.Marshal(plain(f))
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	for name, value := range fields {
		if value == "" || value == 0.0 {
			fields[name] = nil
		}
	}
	return json.Marshal(fields)
}
