// Package cluster makes clusters on one machine for the tests of packaging: machines in namespaces, each with a Debian of its own,
// processes, names, devices and control groups, on one network, which nobody else sees. On them run a Kubernetes, with two kubelets
// and containerd, or a Slurm. All machines see the same kernel and the same CPUs.
//
// make test-cluster runs the tests. What they need is fetched once and kept in a folder ([Cache]).
package cluster
