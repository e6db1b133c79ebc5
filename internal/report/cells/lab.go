package cells

import "github.com/unthunk/unthunk/internal/record"

// OnWires tells whether a row is of interfaces on wires.
func OnWires(row *record.LabRow) bool { return row.Labels["nic"] != "" && row.Labels["nic"] != "veth" }
