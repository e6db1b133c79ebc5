package experiment

// stage is one part of the work, reached through an interface.
type stage interface {
	// one works on a packet and returns false when it is dropped.
	one(p *packet) bool
	// bulk works on those that are not dropped yet.
	bulk(ps []packet)
}

// stages cuts the twelve steps into 1, 4 or 12 stages.
func (c *core) stages(n int) []stage {
	switch n {
	case 1:
		return []stage{(*all)(c)}
	case 4:
		return []stage{(*parse)(c), (*find)(c), (*rewrite)(c), (*send)(c)}
	case 12:
		return []stage{
			(*take)(c), (*ether)(c), (*header)(c), (*length)(c), (*checksum)(c), (*lookup)(c),
			(*device)(c), (*mark)(c), (*swap)(c), (*count)(c), (*transmit)(c), (*give)(c),
		}
	}
	return nil
}

// The stages are the core by other names.
type (
	all      core
	parse    core
	find     core
	rewrite  core
	send     core
	take     core
	ether    core
	header   core
	length   core
	checksum core
	lookup   core
	device   core
	mark     core
	swap     core
	count    core
	transmit core
	give     core
)

func (s *all) one(p *packet) bool {
	return (*parse)(s).one(p) && (*find)(s).one(p) && (*rewrite)(s).one(p) && (*send)(s).one(p)
}

func (s *parse) one(p *packet) bool {
	c := (*core)(s)
	return c.take(p) && c.ether(p) && c.header(p) && c.length(p)
}

func (s *find) one(p *packet) bool {
	c := (*core)(s)
	return c.checksum(p) && c.lookup(p) && c.device(p)
}

func (s *rewrite) one(p *packet) bool {
	c := (*core)(s)
	return c.mark(p) && c.swap(p)
}

func (s *send) one(p *packet) bool {
	c := (*core)(s)
	return c.count(p) && c.transmit(p) && c.give(p)
}

func (s *take) one(p *packet) bool     { return (*core)(s).take(p) }
func (s *ether) one(p *packet) bool    { return (*core)(s).ether(p) }
func (s *header) one(p *packet) bool   { return (*core)(s).header(p) }
func (s *length) one(p *packet) bool   { return (*core)(s).length(p) }
func (s *checksum) one(p *packet) bool { return (*core)(s).checksum(p) }
func (s *lookup) one(p *packet) bool   { return (*core)(s).lookup(p) }
func (s *device) one(p *packet) bool   { return (*core)(s).device(p) }
func (s *mark) one(p *packet) bool     { return (*core)(s).mark(p) }
func (s *swap) one(p *packet) bool     { return (*core)(s).swap(p) }
func (s *count) one(p *packet) bool    { return (*core)(s).count(p) }
func (s *transmit) one(p *packet) bool { return (*core)(s).transmit(p) }
func (s *give) one(p *packet) bool     { return (*core)(s).give(p) }

// The loops are written out one by one: a common one would call its step through a
// function value, per packet.

func (s *all) bulk(ps []packet) {
	c := (*core)(s)
	for i := range ps {
		p := &ps[i]
		if !s.one(p) {
			c.dropped++
			c.give(p)
		}
	}
}

func (s *parse) bulk(ps []packet) {
	for i := range ps {
		ps[i].drop = !s.one(&ps[i])
	}
}

func (s *find) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *rewrite) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *send) bulk(ps []packet) {
	c := (*core)(s)
	for i := range ps {
		p := &ps[i]
		if p.drop {
			c.dropped++
			c.give(p)
			continue
		}
		s.one(p)
	}
}

func (s *take) bulk(ps []packet) {
	for i := range ps {
		ps[i].drop = !s.one(&ps[i])
	}
}

func (s *ether) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *header) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *length) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *checksum) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *lookup) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *device) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *mark) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *swap) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *count) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *transmit) bulk(ps []packet) {
	for i := range ps {
		if p := &ps[i]; !p.drop {
			p.drop = !s.one(p)
		}
	}
}

func (s *give) bulk(ps []packet) {
	c := (*core)(s)
	for i := range ps {
		if ps[i].drop {
			c.dropped++
		}
		s.one(&ps[i])
	}
}
