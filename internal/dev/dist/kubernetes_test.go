package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// kinds are the types of the API by what manifests call them.
func kinds() map[string]any {
	return map[string]any{
		"v1/Namespace": &corev1.Namespace{}, "v1/ServiceAccount": &corev1.ServiceAccount{}, "apps/v1/DaemonSet": &appsv1.DaemonSet{},
		"batch/v1/CronJob": &batchv1.CronJob{}, "networking.k8s.io/v1/NetworkPolicy": &networkingv1.NetworkPolicy{},
	}
}

// Each folder renders, every field in it is one of the API's, and each pod has what it needs
// and no more.
func TestManifests(t *testing.T) {
	all := make(map[string]corev1.PodSpec)
	for folder, want := range map[string]int{"base": 4, "metrics": 4, "job": 4} {
		m, err := render(filepath.Join("..", "..", "..", "packaging", "kubernetes", folder))
		if err != nil {
			t.Fatal(err)
		}
		if m.Size() != want {
			t.Errorf("%s: %d objects, want %d", folder, m.Size(), want)
		}
		for _, r := range m.Resources() {
			text, err := r.AsYAML()
			if err != nil {
				t.Fatal(err)
			}
			name := r.GetGvk().ApiVersion() + "/" + r.GetKind()
			into, ok := kinds()[name]
			if !ok {
				t.Errorf("%s: %s is none of %v", folder, name, kinds())
				continue
			}
			if err := yaml.UnmarshalStrict(text, into); err != nil {
				t.Errorf("%s: %s: %v", folder, name, err)
			}
			if ns := r.GetNamespace(); name != "v1/Namespace" && ns != "unthunk" {
				t.Errorf("%s: %s is in namespace %q", folder, name, ns)
			}
			switch o := into.(type) {
			case *appsv1.DaemonSet:
				all[folder] = o.Spec.Template.Spec
				checkPod(t, folder, o.Spec.Template.Spec)
				for key, value := range o.Spec.Selector.MatchLabels {
					if o.Spec.Template.Labels[key] != value {
						t.Errorf("%s: pods are not selected by %s", folder, key)
					}
				}
				listens := slices.ContainsFunc(o.Spec.Template.Spec.Containers[0].Args, func(a string) bool {
					return strings.HasPrefix(a, "--listen")
				})
				if listens != (folder == "metrics") {
					t.Errorf("%s: listens: %v", folder, listens)
				}
			case *batchv1.CronJob:
				all[folder] = o.Spec.JobTemplate.Spec.Template.Spec
				checkPod(t, folder, all[folder])
			}
		}
		if _, ok := all[folder]; !ok {
			t.Errorf("%s has no pods", folder)
		}
	}
	// A job's pod is that of the DaemonSet, but that it ends, and that no node has two.
	want, got := all["base"], all["job"]
	if got.Affinity == nil || len(got.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) != 1 {
		t.Errorf("two pods of a job may be on one node: %+v", got.Affinity)
	}
	want.RestartPolicy, want.Affinity = corev1.RestartPolicyNever, got.Affinity
	want.Containers[0].Args[1] = "--once"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pods of DaemonSet and job (-want +got):\n%s", diff)
	}
}

func checkPod(t *testing.T, folder string, pod corev1.PodSpec) {
	t.Helper()
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Errorf("%s: the pod shares too much, or not the network", folder)
	}
	c := pod.Containers[0]
	identified := false
	for _, v := range pod.Volumes {
		mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.Name == v.Name && m.ReadOnly && m.MountPath == "/etc/machine-id"
		})
		switch {
		case v.HostPath != nil && v.HostPath.Path == "/etc/machine-id" && mounted:
			identified = true
		case v.EmptyDir == nil:
			t.Errorf("%s: volume %s stays on the node", folder, v.Name)
		}
	}
	if !identified {
		t.Errorf("%s: a pod does not know which machine its node is", folder)
	}
	s := c.SecurityContext
	caps := []corev1.Capability{"SYS_ADMIN", "NET_ADMIN", "BPF", "PERFMON", "SYSLOG"}
	if s.Privileged != nil || !*s.ReadOnlyRootFilesystem || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, caps) {
		t.Errorf("%s: %+v", folder, s)
	}
	if c.Resources.Limits.Memory().Value() != 512<<20 || c.Resources.Limits.Cpu().Value() != 1 {
		t.Errorf("%s: limits %v", folder, c.Resources.Limits)
	}
	if !strings.HasPrefix(c.Image, imageName+":") || len(c.Args) == 0 || c.Args[0] != "agent" {
		t.Errorf("%s: %s %q", folder, c.Image, c.Args)
	}
}
