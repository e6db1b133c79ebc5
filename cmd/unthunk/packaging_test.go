package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v2"
)

// The unit runs the agent with flags that it has and the capabilities that it keeps, and
// one for the folder of another user; so do the manifests, without that folder.
func TestPackagingRunsTheAgent(t *testing.T) {
	want := capabilitiesOf(t, "agent")
	checkUnit(t, "agent", append(slices.Clone(want), "CAP_DAC_OVERRIDE"))

	// The CronJob's pod is the DaemonSet's, but for one argument (packaging/kubernetes/job/kustomization.yaml).
	const pod = "../../packaging/kubernetes/base/daemonset.yaml"
	var doc any
	if err := yaml.Unmarshal([]byte(readFile(t, pod)), &doc); err != nil {
		t.Fatal(err)
	}
	args := texts(valueOf(doc, "args"))
	checkCommand(t, pod, args)
	if i := slices.Index(args, "--every=168h"); i != 1 {
		t.Errorf("%s: --every is argument %d of %q", pod, i, args)
	}
	args[1] = "--once"
	checkCommand(t, "packaging/kubernetes/job", args)
	var caps []string
	for _, c := range texts(valueOf(doc, "add")) {
		caps = append(caps, "CAP_"+c)
	}
	checkCapabilities(t, pod, want, caps)
}

// The unit runs forward as a service that says that it goes on, and reads its files again when it is reloaded.
func TestPackagingRunsForward(t *testing.T) {
	unit := checkUnit(t, "forward", capabilitiesOf(t, "forward"))
	for key, want := range map[string]string{"Type": "notify", "ExecReload": "/bin/kill -HUP $MAINPID", "RestartPreventExitStatus": "2 4"} {
		if got := strings.Join(unitLine(t, unit, key), " "); got != want {
			t.Errorf("%s: %s=%s, want %s", unit, key, got, want)
		}
	}
	if watchdog, err := time.ParseDuration(unitLine(t, unit, "WatchdogSec")[0]); err != nil || watchdog < 5*time.Second {
		t.Errorf("%s: a watchdog of %v, %v, which a busy machine misses", unit, watchdog, err)
	}
}

// capabilitiesOf are what a verb keeps.
func capabilitiesOf(t *testing.T, verb string) (names []string) {
	t.Helper()
	cmd, _, err := newRoot(std{}).Find([]string{verb})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range rightsOf(cmd).keeps {
		names = append(names, c.String())
	}
	slices.Sort(names)
	return names
}

// checkUnit checks that a verb's unit runs it with flags that it has, and what is configured behind them, and with
// these capabilities. It returns the unit's path.
func checkUnit(t *testing.T, verb string, capabilities []string) (unit string) {
	t.Helper()
	unit = "../../packaging/systemd/unthunk-" + verb + ".service"
	variable := "UNTHUNK_" + strings.ToUpper(verb)
	args := unitLine(t, unit, "ExecStart")
	if args[len(args)-1] != "$"+variable {
		t.Errorf("%s: what is configured is not at the end of %q", unit, args)
	}
	checkCommand(t, unit, args[1:len(args)-1])
	checkCapabilities(t, unit, capabilities, unitLine(t, unit, "CapabilityBoundingSet"))
	options := "../../packaging/systemd/unthunk-" + verb + ".default"
	found := regexp.MustCompile(`(?m)^#?`+variable+`="(.*)"$`).FindAllStringSubmatch(readFile(t, options), -1)
	if len(found) < 2 {
		t.Fatalf("%s has %d examples", options, len(found))
	}
	if found[0][0] != variable+`=""` { // of two assignments systemd takes the last
		t.Errorf("%s: %s is not before the examples", options, variable)
	}
	for _, m := range found {
		checkCommand(t, options, append([]string{verb}, strings.Fields(m[1])...))
	}
	return unit
}

// unitLine are the words of a unit's line.
func unitLine(t *testing.T, unit, key string) []string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + key + `=(.+)$`).FindStringSubmatch(readFile(t, unit))
	if m == nil {
		t.Fatalf("%s has no %s", unit, key)
	}
	return strings.Fields(m[1])
}

func checkCapabilities(t *testing.T, file string, want, got []string) {
	t.Helper()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("%s gives %q, and %q are needed", file, got, want)
	}
}

// valueOf is the value of a key of that name in a document, wherever it is; nil when there is none.
func valueOf(doc any, name string) any {
	switch d := doc.(type) {
	case map[any]any:
		if v := d[name]; v != nil {
			return v
		}
		for _, value := range d {
			if v := valueOf(value, name); v != nil {
				return v
			}
		}
	case []any:
		for _, value := range d {
			if v := valueOf(value, name); v != nil {
				return v
			}
		}
	}
	return nil
}

func texts(list any) (all []string) {
	values, _ := list.([]any)
	for _, v := range values {
		s, _ := v.(string)
		all = append(all, s)
	}
	return all
}
