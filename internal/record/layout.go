package record

// indented is a JSON document without blanks as [json.MarshalIndent] lays it out, by two, as [EscapeJSON] makes it, and with a newline at
// its end; errSize where that is larger than most bytes. It takes no memory but that of what it returns: it is measured first.
func indented(compact []byte, most int) ([]byte, error) {
	measured := layout{}
	measured.document(compact)
	if measured.size > most {
		return nil, errSize
	}
	l := layout{out: make([]byte, 0, measured.size)}
	l.document(compact)
	return l.out, nil
}

// layout lays JSON out; without out it measures.
type layout struct {
	out   []byte
	size  int
	depth int
}

const spaces = "                                                                "

func (l *layout) document(b []byte) {
	for at := 0; at < len(b); {
		end := at + 1
		switch b[at] {
		case '{', '[':
			l.put(b[at:end])
			if b[end] == '}' || b[end] == ']' {
				l.put(b[end : end+1])
				end++
				break
			}
			l.depth++
			l.line()
		case '}', ']':
			l.depth--
			l.line()
			l.put(b[at:end])
		case ',':
			l.put(b[at:end])
			l.line()
		case ':':
			l.put([]byte(": "))
		case '"':
			for ; b[end] != '"'; end++ {
				if b[end] == '\\' {
					end++
				}
			}
			end++
			l.put(EscapeJSON(b[at:end]))
		default: // a number, or a word
			for end < len(b) && b[end] != ',' && b[end] != ']' && b[end] != '}' {
				end++
			}
			l.put(b[at:end])
		}
		at = end
	}
	l.put([]byte{'\n'})
}

func (l *layout) put(b []byte) {
	l.size += len(b)
	if l.out != nil {
		l.out = append(l.out, b...)
	}
}

// line begins a line.
func (l *layout) line() {
	l.put([]byte{'\n'})
	for left := 2 * l.depth; left > 0; left -= len(spaces) {
		l.put([]byte(spaces[:min(left, len(spaces))]))
	}
}
