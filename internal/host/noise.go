package host

// StealSince starts watching steal time. The function it returns says how
// much of all CPUs' time the hypervisor has taken since, in percent; 0 when
// the kernel does not tell.
func StealSince() func() float64 {
	m := newMachine(Options{})
	before, err := m.ticks()
	return func() float64 {
		after, err2 := m.ticks()
		if err != nil || err2 != nil || after.total <= before.total || after.steal < before.steal {
			return 0
		}
		return 100 * float64(after.steal-before.steal) / float64(after.total-before.total)
	}
}
