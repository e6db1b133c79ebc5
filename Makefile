SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: generate check-generated lint test test-arm64 missing verify bench fuzz filters race test-kernels test-kernels-arm64 history trust deps man dist dist-check test-cluster spectre ladder peers soak

export CGO_ENABLED := 0
export BPF2GO_CC ?= clang-14
export BPF2GO_STRIP ?= llvm-strip-14

# Test binaries run as root, the Go toolchain as whoever called make.
AS_ROOT := -exec $(CURDIR)/scripts/as-root
FUZZTIME ?= 10s

# The BPF objects and the Go that embeds them. Needs clang-14 and llvm-14.
generate:
	go generate ./internal/bpf/...

check-generated:
	scripts/check-generated

lint:
	@scripts/lint

# Tools the tests use, through apt-get when that is possible.
deps:
	@scripts/install-deps

# What holds on every machine at every moment: a quarter of an hour on two cores. Each
# benchmark and each check of make verify runs once, so that it cannot rot.
test: missing check-generated test-arm64
	@scripts/test

# Those of packages that ask no kernel, for arm64 under QEMU's user mode: half a minute and what building takes.
test-arm64:
	@scripts/test-arm64

missing:
	@scripts/install-deps check

# What is measured: a table for docs/method.md, in some 20 minutes. A check that the
# machine disturbed is repeated; where every try was disturbed, it is not judged.
verify:
	UNTHUNK_VERIFY=1 go test -json -p=1 -count=1 -timeout=60m -run='^TestVerify' $(AS_ROOT) \
		$$(grep -rl --include='*_test.go' 'verify\.Run(' . | xargs dirname | sort -u) | go run ./internal/dev/verify

bench:
	go test -p=1 -run='^$$' -bench=. -count=6 -timeout=60m $(AS_ROOT) ./...

fuzz:
	scripts/fuzz $(FUZZTIME)

# Random pcap expressions against libpcap's compiler, each on some 200 frames; 200
# expressions are part of make test.
EXPRESSIONS ?= 10000
filters: missing
	UNTHUNK_EXPRESSIONS=$(EXPRESSIONS) go test -count=1 -timeout=60m -v -run='^TestAgainstTcpdump$$' $(AS_ROOT) ./filter | \
		grep -v 'TestAgainstTcpdump/'

# The race detector over every package that starts goroutines or locks, or those in RACE; needs
# a C compiler. -short leaves out what takes minutes; internal/dev/dist is a module of its own.
RACE ?= $$(grep -rlE --include='*.go' '\bgo func|^\s+go [a-z]|"sync(/atomic)?"' . | xargs dirname | sort -u | grep -vx ./internal/dev/dist)
race:
	CGO_ENABLED=1 go test -race -short -count=1 -p=1 -timeout=90m $(AS_ROOT) $(RACE)

# Runs unthunk, and the tests of packages that touch the kernel, on stock Debian
# kernels under QEMU; downloads them once. UNTHUNK_TREE=DIR is a built tree of Linux 6.12 or
# later: a history on a copy of it is bisected.
test-kernels: missing test-kernels-arm64
	UNTHUNK_GUEST=1 go test -json -p=1 -count=1 -timeout=120m -skip='ARM64$$' \
		./gate ./internal/guest ./internal/kernel ./internal/lab ./internal/progcode | go run ./internal/dev/testsum
	UNTHUNK_GUEST=1 go test -json -count=1 -timeout=45m -run='^Test(Gate|Rollout|VerbsA)' -skip='ARM64$$' \
		./cmd/unthunk | go run ./internal/dev/testsum
	[ -z "$${UNTHUNK_TREE:-}" ] || scripts/bisect "$$UNTHUNK_TREE"

# The part of it with guests of arm64, on x86-64 too: each verb, what a PMU counts, lab and gate.
# It ends with the CPU time that it took, guests included.
test-kernels-arm64: missing
	@TIMEFORMAT='CPU time: %U s in user space, %S s in the kernel; %R s by the clock'; \
	time UNTHUNK_GUEST=1 go test -json -p=1 -count=1 -timeout=60m -run='ARM64$$' \
		./cmd/unthunk ./internal/guest ./internal/lab | go run ./internal/dev/testsum

# The tables and the figure of docs/history-of-a-packet.md: Debian's kernels of each series, counted in QEMU; the guests that were
# counted already are not booted again.
history:
	scripts/history

# How far the verdicts can be trusted: the table of docs/method.md, in half an
# hour.
trust:
	go run -exec $(CURDIR)/scripts/as-root ./internal/dev/trust

# Man pages, one a verb, in build/man.
man:
	go run ./cmd/unthunk man build/man

# Binaries, packages, an image and what belongs to them, of the commit, in build/dist. Two
# runs write the same bytes.
dist:
	go -C internal/dev/dist run . -o $(CURDIR)/build/dist

# That they are the same; the .deb in a Debian made from the archive, with its units under
# systemd and by the Ansible role; the .rpm, the .apk, what is for arm64. As root, in a quarter
# of an hour.
dist-check:
	@scripts/dist-check

# What make dist makes, on a Kubernetes of two nodes and on a Slurm, in namespaces here: the
# manifests from the first pod to the last, and the .deb. As root, in some minutes; the first
# time it builds Kubernetes, in 13 minutes of CPU time, and a Debian, in
# $XDG_CACHE_HOME/unthunk-cluster or /var/cache. TESTS=Slurm runs what has that in its name.
TESTS ?=
test-cluster: dist
	UNTHUNK_CLUSTER=1 UNTHUNK_DIST=$(CURDIR)/build/dist go test -json -count=1 -timeout=90m -run='$(TESTS)' $(AS_ROOT) \
		./internal/dev/cluster | go run ./internal/dev/testsum

# The experiment and the ladder of docs/datapath.md: benchmarks built plain and with
# retpolines, run in turn, in two minutes.
spectre:
	go run ./internal/dev/spectre ./internal/dev/experiment
	go run ./internal/dev/spectre -bench 'Ladder$$|Gather' ./datapath

# How many times as long the datapath of this tree takes a frame as that of another commit: both
# built and run in turn, in a minute.
BASE ?= e25aa7e
ladder:
	@go run ./internal/dev/spectre -base $(BASE) -bench 'Ladder$$/^whole-batch$$' -rounds 41 ./datapath

# Other forwarders against ours, on veth and on a device that costs nothing: the
# peer table of docs/datapath.md. Installs and builds them first.
peers:
	scripts/peers

# The forwarder at overload while links and devices come and go.
SOAKTIME ?= 10m
soak:
	UNTHUNK_SOAK=$(SOAKTIME) go test -count=1 -timeout=0 -v -run='^TestSoak$$' $(AS_ROOT) ./internal/forward
