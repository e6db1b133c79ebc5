package cluster

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Kubernetes is a Kubernetes with a control plane and nodes. Pods have the network of their node: there is no other.
type Kubernetes struct {
	Farm    *Farm
	Control *Machine
	Nodes   []*Machine

	ca       *authority
	programs string
	images   []string // files that each node imports
}

// StartKubernetes starts a Kubernetes of the machines control, n1 and n2 of a farm, whose nodes have an image, and returns when
// they are ready.
func StartKubernetes(ctx context.Context, f *Farm, cache, image string) (*Kubernetes, error) {
	programs, err := programs(cache)
	if err != nil {
		return nil, err
	}
	pause := filepath.Join(f.Dir, "pause.tar")
	if err := writePause(pause); err != nil {
		return nil, err
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	k := &Kubernetes{Farm: f, ca: ca, programs: programs, images: []string{pause, image}}
	if err := k.startControl(ctx); err != nil {
		return nil, err
	}
	for _, name := range []string{"n1", "n2"} {
		m, err := f.Add(name)
		if err != nil {
			return nil, err
		}
		k.Nodes = append(k.Nodes, m)
		if err := errors.Join(k.install(m, "kubelet"), k.configureNode(m)); err != nil {
			return nil, err
		}
		if err := k.StartNode(ctx, m); err != nil {
			return nil, err
		}
		for _, file := range k.images {
			if err := k.load(ctx, m, file); err != nil {
				return nil, err
			}
		}
	}
	return k, k.WaitReady(ctx)
}

// install gives a machine programs of Kubernetes.
func (k *Kubernetes) install(m *Machine, names ...string) error {
	if err := m.Copy(k.programs, "/usr/local/bin/kubernetes"); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Symlink("kubernetes", filepath.Join(m.root, "usr/local/bin", name)); err != nil {
			return fmt.Errorf("install %s: %w", name, err)
		}
	}
	return nil
}

// startControl starts the control plane and returns when it answers.
func (k *Kubernetes) startControl(ctx context.Context) error {
	m, err := k.Farm.Add("control")
	if err != nil {
		return err
	}
	k.Control = m
	if err := k.install(m, "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"); err != nil {
		return err
	}
	address := net.ParseIP(m.Address)
	err = errors.Join(
		m.Write("/pki/ca.crt", k.ca.pem(), 0o644),
		k.writePair(m, "apiserver", "kube-apiserver", "", address, net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)),
		k.writePair(m, "kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
		k.writePair(m, "service-account", "service-account", ""),
		k.writeConfig(m, "/pki/controller-manager.conf", "system:kube-controller-manager", ""),
		k.writeConfig(m, "/pki/scheduler.conf", "system:kube-scheduler", ""),
		k.writeConfig(m, "/root/.kube/config", "admin", "system:masters"),
		m.Start(),
		m.Daemon("etcd", "--data-dir=/var/lib/etcd", "--listen-client-urls=http://127.0.0.1:2379",
			"--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380"),
		m.Daemon("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address="+m.Address, "--advertise-address="+m.Address,
			"--service-cluster-ip-range=10.96.0.0/24", "--client-ca-file=/pki/ca.crt",
			"--tls-cert-file=/pki/apiserver.crt", "--tls-private-key-file=/pki/apiserver.key",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=/pki/service-account.crt", "--service-account-signing-key-file=/pki/service-account.key",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--kubelet-client-certificate=/pki/kubelet-client.crt", "--kubelet-client-key=/pki/kubelet-client.key",
			// By name it would ask a DNS, of which there is none.
			"--kubelet-preferred-address-types=InternalIP",
			// It asks an etcd of 3.4 in vain, each second.
			"--feature-gates=SizeBasedListCostEstimate=false"),
	)
	if err != nil {
		return err
	}
	if err := until(ctx, func() error { _, err := k.Kubectl(ctx, "get", "--raw", "/readyz"); return err }); err != nil {
		return err
	}
	return errors.Join(
		// Nodes renew their leases each 2.5 s: after 20 s without, one is not ready.
		m.Daemon("kube-controller-manager", "--kubeconfig=/pki/controller-manager.conf", "--use-service-account-credentials",
			"--service-account-private-key-file=/pki/service-account.key", "--root-ca-file=/pki/ca.crt",
			"--node-monitor-period=2s", "--node-monitor-grace-period=20s"),
		m.Daemon("kube-scheduler", "--kubeconfig=/pki/scheduler.conf"),
	)
}

// writePair writes a certificate and its key into /pki of a machine.
func (k *Kubernetes) writePair(m *Machine, file, name, group string, addresses ...net.IP) error {
	cert, key, err := k.ca.issue(name, group, addresses...)
	if err != nil {
		return err
	}
	return errors.Join(m.Write("/pki/"+file+".crt", cert, 0o644), m.Write("/pki/"+file+".key", key, 0o600))
}

// writeConfig writes the file by which a client of the API server knows it and is known.
func (k *Kubernetes) writeConfig(m *Machine, file, name, group string) error {
	cert, key, err := k.ca.issue(name, group)
	if err != nil {
		return err
	}
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	return m.Write(file, fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster: {server: "https://%s:6443", certificate-authority-data: %s}
users:
- name: user
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: context
  context: {cluster: cluster, user: user}
current-context: context
`, k.Control.Address, encode(k.ca.pem()), encode(cert), encode(key)), 0o600)
}

// containerdConfig is that of each node. A process that was started without CAP_SYS_RESOURCE cannot lower a score of the OOM killer:
// containers keep theirs.
const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  restrict_oom_score_adj = true
`

// networkConfig is there so that a node is ready. No pod asks for a network of its own.
const networkConfig = `{"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]}
`

// kubeletConfig takes control groups of version 1, and says early that it is alive. What the disk of this machine holds is not the
// node's matter.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, x509: {clientCAFile: /pki/ca.crt}}
cgroupDriver: cgroupfs
failCgroupV1: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
resolvConf: ""
nodeLeaseDurationSeconds: 10
protectKernelDefaults: true
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: 1Mi, imagefs.available: 1Mi, memory.available: 1Mi}
`

// kernelDefaults are settings of the whole machine that a kubelet would change, and what it wants them to be. A node sees that they
// are so.
var kernelDefaults = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

func (k *Kubernetes) configureNode(m *Machine) error {
	errs := []error{
		m.Write("/pki/ca.crt", k.ca.pem(), 0o644),
		k.writeConfig(m, "/pki/kubelet.conf", "system:node:"+m.Name, "system:nodes"),
		m.Write("/etc/containerd/config.toml", containerdConfig, 0o644),
		m.Write("/etc/cni/net.d/10-none.conflist", networkConfig, 0o644),
		m.Write("/etc/kubelet.yaml", kubeletConfig, 0o644),
	}
	for name, value := range kernelDefaults {
		errs = append(errs, m.Write("/etc/defaults/"+name, value+"\n", 0o644))
	}
	return errors.Join(errs...)
}

// StartNode boots a node and joins it to the cluster, for the first time or again.
func (k *Kubernetes) StartNode(ctx context.Context, m *Machine) error {
	if err := m.Start(); err != nil {
		return err
	}
	for name := range kernelDefaults {
		if _, err := m.Run(ctx, "mount", "--bind", "/etc/defaults/"+name, "/proc/sys/"+name); err != nil {
			return err
		}
	}
	// Where kubelets look for what the OOM killer did.
	if _, err := m.Run(ctx, "mknod", "/dev/kmsg", "c", "1", "11"); err != nil {
		return err
	}
	if err := m.Daemon("containerd"); err != nil {
		return err
	}
	if err := until(ctx, func() error { _, err := m.Run(ctx, "ctr", "version"); return err }); err != nil {
		return err
	}
	return m.Daemon("kubelet", "--config=/etc/kubelet.yaml", "--kubeconfig=/pki/kubelet.conf", "--hostname-override="+m.Name,
		"--node-ip="+m.Address)
}

// load imports an image into a node.
func (k *Kubernetes) load(ctx context.Context, m *Machine, file string) error {
	at := "/tmp/" + filepath.Base(file)
	cmd := m.Command(ctx, "sh", "-c", "cat >"+at+" && ctr -n k8s.io images import "+at+" && rm "+at)
	in, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	defer in.Close()
	cmd.Stdin = in
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load image into %s: %w\n%s", m.Name, err, out)
	}
	return nil
}

// Kubectl runs kubectl as the administrator, and returns what it prints.
func (k *Kubernetes) Kubectl(ctx context.Context, args ...string) (string, error) {
	return k.Control.Run(ctx, "kubectl", args...)
}

// WaitReady returns when every node takes pods.
func (k *Kubernetes) WaitReady(ctx context.Context) error {
	for _, m := range k.Nodes {
		if err := k.waitReady(ctx, m, "True"); err != nil {
			return err
		}
	}
	return nil
}

// WaitLost returns when the control plane knows that a node is gone.
func (k *Kubernetes) WaitLost(ctx context.Context, m *Machine) error {
	return k.waitReady(ctx, m, "Unknown")
}

func (k *Kubernetes) waitReady(ctx context.Context, m *Machine, want string) error {
	return until(ctx, func() error {
		got, err := k.Kubectl(ctx, "get", "node", m.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && strings.TrimSpace(got) != want {
			err = fmt.Errorf("node %s is ready: %q, not %s", m.Name, got, want)
		}
		return err
	})
}
