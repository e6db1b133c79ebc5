package recordtest

// LabJSON is a record of lab with one row.
const LabJSON = `{"schema":"unthunk/1","kind":"lab","time":"2026-01-01T00:00:00Z","run":"a","host":{},"rows":[
{"name":"k/bulk=1","labels":{"kernel":"k"},"release":"6.12","thunk":"retpoline","spectre-v2":"","instructions":10.5,"calls":1,
"sites":[{"function":"f","offset":1,"kind":"thunk","stage":"receive","target":"g","per-packet":1}],
"counts":{},"functions":[{"function":"f","per-packet":1}]}],"warnings":[],"differences":[],"price":null}`
