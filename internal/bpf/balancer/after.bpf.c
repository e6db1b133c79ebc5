//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#define CONSTANT
#include "balancer.bpf.c"
