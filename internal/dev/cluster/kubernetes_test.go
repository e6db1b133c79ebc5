package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// packaged are the manifests, and where the control plane's machine has them.
const packaged, manifests = "../../../packaging/kubernetes", "/root/kubernetes"

// Lines of docs/fleet.md that the test runs on the control plane's machine, with /root as folder.
const (
	lineApply  = "kubectl apply -f unthunk-*-kubernetes.yaml"
	lineStatus = "kubectl -n unthunk rollout status daemonset/unthunk-agent"
	lineLogs   = "kubectl -n unthunk logs -l app.kubernetes.io/name=unthunk --prefix=false --tail=-1 > records.json"
	lineDelete = "kubectl delete namespace unthunk"
)

// The chapter has these lines, and no others for kubectl.
func TestKubernetesGuide(t *testing.T) {
	text, err := os.ReadFile("../../../docs/fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		if command, ok := strings.CutPrefix(line, "    "); ok && strings.HasPrefix(command, "kubectl ") {
			got = append(got, strings.TrimSpace(command))
		}
	}
	if want := []string{lineApply, lineStatus, lineLogs, lineDelete}; !slices.Equal(got, want) {
		t.Errorf("docs/fleet.md has %q, the test runs %q", got, want)
	}
}

// The manifests on two nodes: an agent on each, as it is handed out; a rollout of options; a job on each; records in PostgreSQL and
// metrics in Prometheus; a node that dies and returns; and an end that leaves nothing.
func TestKubernetes(t *testing.T) {
	f := farm(t)
	db := newStore(t)
	k, err := StartKubernetes(t.Context(), f, Cache(), dist(t, "unthunk-*-image.oci.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Control.Copy(packaged, manifests); err != nil {
		t.Fatal(err)
	}
	c := &trial{k: k, db: db, version: imageVersion(t)}
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"agents", c.agents}, {"rollout", c.rollout}, {"job", c.job}, {"metrics", c.metrics}, {"node", c.node}, {"uninstall", c.uninstall},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
}

// trial is the manifests on a cluster.
type trial struct {
	k       *Kubernetes
	db      store
	version string // of the image
}

// imageVersion is the tag of the image that is handed out.
func imageVersion(t *testing.T) string {
	t.Helper()
	name := filepath.Base(dist(t, "unthunk-*-image.oci.tar"))
	return strings.TrimSuffix(strings.TrimPrefix(name, "unthunk-"), "-image.oci.tar")
}

// line runs a line of the chapter.
func (c *trial) line(t *testing.T, command string) {
	t.Helper()
	if _, err := c.k.Control.Run(t.Context(), "sh", "-c", command); err != nil {
		t.Fatal(err)
	}
}

func (c *trial) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.k.Kubectl(t.Context(), append([]string{"--namespace=unthunk"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// agents applies the file that is handed out: an agent runs on each node.
func (c *trial) agents(t *testing.T) {
	file := dist(t, "unthunk-*-kubernetes.yaml")
	if err := c.k.Control.Copy(file, filepath.Join("/root", filepath.Base(file))); err != nil {
		t.Fatal(err)
	}
	c.line(t, lineApply)
	c.line(t, lineStatus)
	c.onEachNode(t)
}

// rollout has the agents run at once, however busy the machine is, and brings their records: one of each node.
func (c *trial) rollout(t *testing.T) {
	before := c.onEachNode(t)
	c.apply(t, "base", "DaemonSet", "/spec/template/spec")
	after := c.onEachNode(t)
	for node, pod := range after {
		if before[node] == pod {
			t.Errorf("%s still has the pod %s", node, pod)
		}
	}
	c.records(t, "app.kubernetes.io/component=agent") // are there
	c.line(t, lineLogs)
	c.db.ingest(t, 2, 2, filepath.Join(c.k.Control.root, "root/records.json"))
}

// job makes a run of the CronJob now, on each node, and brings its records.
func (c *trial) job(t *testing.T) {
	c.apply(t, "job", "CronJob", "/spec/jobTemplate/spec/template/spec")
	c.runJob(t, "first")
}

func (c *trial) runJob(t *testing.T, name string) {
	t.Helper()
	c.kubectl(t, "create", "job", name, "--from=cronjob/unthunk-agent")
	c.kubectl(t, "wait", "job/"+name, "--for=condition=complete", "--timeout=5m")
	c.db.ingest(t, 2, 2, c.records(t, "batch.kubernetes.io/job-name="+name))
}

// metrics has the agents listen, and a Prometheus scrape them.
func (c *trial) metrics(t *testing.T) {
	c.apply(t, "metrics", "DaemonSet", "/spec/template/spec")
	var targets []string
	for _, m := range c.k.Nodes {
		targets = append(targets, m.Address+":9754")
	}
	config := "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: unthunk, static_configs: [{targets: ['" +
		strings.Join(targets, "', '") + "']}]}]\n"
	control := c.k.Control
	if err := control.Write("/etc/prometheus.yml", config, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"prometheus", "promtool"} {
		file, err := exec.LookPath(name)
		if err != nil {
			testutil.Missing(t, name)
		}
		if err := control.Copy(file, "/usr/local/bin/"+name); err != nil {
			t.Fatal(err)
		}
	}
	if err := control.Daemon("prometheus", "--config.file=/etc/prometheus.yml", "--web.listen-address=127.0.0.1:9090",
		"--storage.tsdb.path=/var/lib/prometheus"); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{`up{job="unthunk"} == 1`, "unthunk_host_info"} {
		if err := until(t.Context(), func() error {
			out, err := control.Run(t.Context(), "promtool", "query", "instant", "http://127.0.0.1:9090", query)
			for _, target := range targets {
				if err == nil && !strings.Contains(out, target) {
					err = fmt.Errorf("%s says nothing of %s: %s", query, target, out)
				}
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// node takes the power from a node. When it has it again the agent runs there as before, on the same machine.
func (c *trial) node(t *testing.T) {
	lost := c.k.Nodes[0]
	before := c.onEachNode(t)
	if err := lost.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.k.WaitLost(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	c.waitPods(t, len(c.k.Nodes)-1)
	if err := c.k.StartNode(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	if err := c.k.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := c.onEachNode(t); !maps.Equal(before, after) {
		t.Errorf("pods were %v, and are %v", before, after)
	}
	c.runJob(t, "second")
}

// uninstall deletes the namespace, and looks for what stays on nodes.
func (c *trial) uninstall(t *testing.T) {
	c.line(t, lineDelete)
	for _, m := range c.k.Nodes {
		if err := until(t.Context(), func() error { return clean(t.Context(), m) }); err != nil {
			t.Error(err)
		}
	}
}

// clean says what a node without pods has that it should not have.
func clean(ctx context.Context, m *Machine) error {
	for what, command := range map[string]string{
		"containers":     "ctr --namespace k8s.io containers list --quiet",
		"files of pods":  "ls -A /var/lib/kubelet/pods /var/log/pods /var/log/containers | grep -v : || true",
		"mounts of pods": "grep -e /var/lib/kubelet/pods -e /run/containerd/io.containerd /proc/self/mountinfo || true",
		"control groups": "find /sys/fs/cgroup -path '*/kubepods/*' -name 'pod*'",
		"processes":      "grep -la unthunk /proc/[0-9]*/comm || true",
		"devices":        "ls /sys/class/net | grep -vx -e lo -e eth0 || true",
	} {
		out, err := m.Run(ctx, "sh", "-c", command)
		if err != nil {
			return err
		}
		if out = strings.TrimSpace(out); out != "" {
			return fmt.Errorf("%s has %s: %s", m.Name, what, out)
		}
	}
	return nil
}

// apply applies a folder of the manifests with the image of this version, without the random delay, and to be run however busy the
// machine is. It waits until that is rolled out. A kind has its pods' specification at a path.
func (c *trial) apply(t *testing.T, folder, kind, path string) {
	t.Helper()
	args := path + "/containers/0/args/"
	err := c.k.Control.Write("/root/trial-"+folder+"/kustomization.yaml", `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../kubernetes/`+folder+`]
images: [{name: ghcr.io/unthunk/unthunk, newTag: "`+c.version+`"}]
patches:
- target: {kind: `+kind+`}
  patch: |
    - {op: test, path: `+args+`2, value: --splay=1h}
    - {op: replace, path: `+args+`2, value: --splay=0s}
    - {op: add, path: `+args+`-, value: --max-load=1000}
    - {op: add, path: `+args+`-, value: --max-steal=100}
`, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "apply", "-k", "/root/trial-"+folder)
	c.kubectl(t, "rollout", "status", "daemonset/unthunk-agent", "--timeout=5m")
}

// pods are the agents that are ready: their identities by node.
func (c *trial) pods(ctx context.Context) (map[string]string, error) {
	out, err := c.k.Kubectl(ctx, "--namespace=unthunk", "get", "pods", "-l", "app.kubernetes.io/component=agent", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				UID               string
				DeletionTimestamp string
			}
			Spec   struct{ NodeName string }
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("read pods: %w", err)
	}
	ready := make(map[string]string)
	for _, pod := range list.Items {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" && pod.Metadata.DeletionTimestamp == "" {
				ready[pod.Spec.NodeName] = pod.Metadata.UID
			}
		}
	}
	return ready, nil
}

// waitPods waits until agents are ready on so many nodes, and returns their identities by node.
func (c *trial) waitPods(t *testing.T, want int) (ready map[string]string) {
	t.Helper()
	if err := until(t.Context(), func() (err error) {
		ready, err = c.pods(t.Context())
		if err == nil && len(ready) != want {
			err = fmt.Errorf("agents are ready on %q, not on %d nodes", slices.Sorted(maps.Keys(ready)), want)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return ready
}

// onEachNode waits until an agent is ready on each node.
func (c *trial) onEachNode(t *testing.T) map[string]string {
	t.Helper()
	return c.waitPods(t, len(c.k.Nodes))
}

// records waits until the pods with a label have printed a record of each node, and returns a file with them.
func (c *trial) records(t *testing.T, label string) string {
	t.Helper()
	var text string
	if err := until(t.Context(), func() (err error) {
		text, err = c.k.Kubectl(t.Context(), "--namespace=unthunk", "logs", "-l", label, "--prefix=false", "--tail=-1")
		if err != nil {
			return err
		}
		var docs map[string]*record.Agent
		if docs, err = agents(text); err == nil {
			err = checkNodes(docs, c.k.Nodes)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return said(t, "records.json", text)
}
