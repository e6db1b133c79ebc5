package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// Each wrong flag or target of a verb that takes a program is wrong usage, in one line.
func TestTargetFlags(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, target, want string }{
		{"--set x", "a.o", `--set "x" is not NAME=VALUE`},
		{"--set =1", "a.o", "is not NAME=VALUE"},
		{"--set x=1 --set x=2", "a.o", "x is given twice"},
		{"--map m=", "a.o", "is not NAME=VALUE"},
		{"--map-size m=0", "a.o", "a map has 1 to"},
		{"--map-size nosuch=1", "../../internal/bpf/chain/chain_bpfel.o:sink", "no map nosuch"},
		{"--tail-call t=p", "a.o", "is not TABLE:INDEX=PROGRAM"},
		{"--tail-call nosuch:1=p", "../../internal/bpf/chain/chain_bpfel.o:sink", "no map nosuch"},
		{"", "id:x", "an id is a number"},
		{"", "dev:", "wants the name of a network device"},
		{"--set x=1", "id:1", "--set is for an object file"},
		{"--maps-from id:0", "../../internal/bpf/chain/chain_bpfel.o:sink", "--maps-from: target id:0"},
		{"--set framed_operation=1", "../../internal/bpf/chain/chain_bpfel.o:sink", "did you mean"},
		{"", "../../internal/bpf/chain/chain_bpfel.o:sinks", "did you mean sink?"},
	} {
		var f targetFlags
		fl := pflag.NewFlagSet("prog", pflag.ContinueOnError)
		f.add(fl, true)
		if err := fl.Parse(strings.Fields(tt.args)); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		opened, err := f.open(t.Context(), std{os.Stdin, &out, &out}, tt.target)
		if err == nil {
			opened.Close()
		}
		var usage usageError
		if err == nil || !errors.As(err, &usage) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %s: %v, want %s", tt.args, tt.target, err, tt.want)
		}
	}
}
