package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"
)

// The unit runs the agent with flags that it has and the capabilities that it keeps, and
// one for the folder of another user; so do the manifests, without that folder.
func TestPackagingRunsTheAgent(t *testing.T) {
	agent, _, err := newRoot(std{}).Find([]string{"agent"})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, c := range rightsOf(agent).keeps {
		want = append(want, c.String())
	}
	slices.Sort(want)

	const unit = "../../packaging/systemd/unthunk-agent.service"
	line := func(key string) []string {
		m := regexp.MustCompile(`(?m)^` + key + `=(.+)$`).FindStringSubmatch(readFile(t, unit))
		if m == nil {
			t.Fatalf("%s has no %s", unit, key)
		}
		return strings.Fields(m[1])
	}
	args := line("ExecStart")
	if args[len(args)-1] != "$UNTHUNK_AGENT" {
		t.Errorf("%s: what is configured is not at the end of %q", unit, args)
	}
	checkCommand(t, unit, args[1:len(args)-1])
	checkCapabilities(t, unit, append(slices.Clone(want), "CAP_DAC_OVERRIDE"), line("CapabilityBoundingSet"))
	const options = "../../packaging/systemd/unthunk-agent.default"
	for _, m := range regexp.MustCompile(`(?m)^#?UNTHUNK_AGENT="(.*)"$`).FindAllStringSubmatch(readFile(t, options), -1) {
		checkCommand(t, options, append([]string{"agent"}, strings.Fields(m[1])...))
	}

	// The CronJob's pod is the DaemonSet's, but for one argument (packaging/kubernetes/job/kustomization.yaml).
	const pod = "../../packaging/kubernetes/base/daemonset.yaml"
	var doc any
	if err := yaml.Unmarshal([]byte(readFile(t, pod)), &doc); err != nil {
		t.Fatal(err)
	}
	args = texts(valueOf(doc, "args"))
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

func checkCapabilities(t *testing.T, file string, want, got []string) {
	t.Helper()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("%s gives the agent %q, which needs %q", file, got, want)
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
