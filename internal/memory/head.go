package memory

// Head keeps the first bytes that are written to it, and forgets the rest. Its buffer is no embedded bytes.Buffer: [io.Copy], by
// which package exec reads what a command prints, would take ReadFrom of that in place of Write, and have no limit.
type Head struct {
	most int
	kept []byte
	cut  bool
}

// NewHead keeps at most most bytes.
func NewHead(most int) *Head { return &Head{most: most} }

// Write never fails. It returns the length of p, also of what is forgotten.
func (h *Head) Write(p []byte) (int, error) {
	room := h.most - len(h.kept)
	h.cut = h.cut || len(p) > room
	h.kept = append(h.kept, p[:min(len(p), room)]...)
	return len(p), nil
}

// Bytes are those that h keeps, until the next Write.
func (h *Head) Bytes() []byte { return h.kept }

func (h *Head) String() string { return string(h.kept) }

// Cut tells whether more was written than h keeps.
func (h *Head) Cut() bool { return h.cut }
