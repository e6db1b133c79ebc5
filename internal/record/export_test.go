package record

// What tests from outside call that callers do not.
var (
	Parse          = parse
	ParseLab       = parseLab
	ParseProfile   = parseProfile
	ParseSites     = parseSites
	ErrNotReported = errNotReported
)
