package perf

// drain has parse take the records between two positions of a ring, and returns false
// when what is there is not records. Positions grow for ever; what lies at one is at its
// remainder. parse returns how much it took of whole records, 0 when there is none.
func (r *ring) drain(ring []byte, tail, head uint64, parse func([]byte) int) (good bool) {
	size := uint64(len(ring))
	if head-tail > size { // the kernel never writes over what was not read
		return false
	}
	for tail != head {
		at := tail % size
		part := ring[at:min(size, at+head-tail)]
		n := parse(part)
		if n == 0 { // a record that goes round the end
			r.wrap = append(append(r.wrap[:0], part...), ring[:head-tail-uint64(len(part))]...)
			// The last two bytes of its header are its length.
			if len(r.wrap) >= headerSize {
				if length := int(r.wrap[6]) | int(r.wrap[7])<<8; length > len(part) && length <= len(r.wrap) {
					n = parse(r.wrap[:length])
				}
			}
		}
		if n == 0 {
			return false
		}
		tail += uint64(n)
	}
	return true
}
