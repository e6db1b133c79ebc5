package record

// CallGraph is that of a redirect path, as `xray --dot` draws it.
type CallGraph struct {
	// Functions by name, each once.
	Functions []string
	Calls     []GraphCall
}

// GraphCall is an arrow of a call graph.
type GraphCall struct {
	// From is a function; To is one, or says what is called where that is not known.
	From, To string
	// Site is the indirect branch that calls; nil for a direct call or jump.
	Site *SiteRow
}
