package main

import (
	"fmt"
	"os"
	"syscall"

	"unthunk/internal/bpf/price"
	"unthunk/ksym"
)

func main() {
	table, err := ksym.Live()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, name := range []string{"nothing", "reference", "second", "lpm_known"} {
		p, err := price.Load(name)
		if err != nil {
			fmt.Println(name, err)
			continue
		}
		info, _ := p.Info()
		a, okA := info.JitedKsymAddrs()
		l, okL := info.JitedFuncLens()
		fmt.Print(name, " ", okA, okL, " lens ", l, " addrs")
		for _, x := range a {
			s, off, _ := table.Find(uint64(x))
			fmt.Printf(" %s+%#x", s.Name, off)
		}
		fmt.Println()
	}
	_, err = price.LoadPair([2]string{"loop_called", "loop_inlined"})
	fmt.Println("callback pair:", err)
	_, err = os.Stat("/proc/sys/net/core/bpf_jit_enable")
	fmt.Println("own namespace, sysctl:", err)
	fmt.Println("unshare:", syscall.Unshare(syscall.CLONE_NEWNET))
	_, err = os.Stat("/proc/thread-self/net/../../../sys/net/core/bpf_jit_enable")
	_, err2 := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	fmt.Println("new namespace, sysctl:", err, err2)
	if len(os.Args) > 1 {
		err = syscall.Exec("/init", os.Args[1:], os.Environ())
		fmt.Println(err)
	}
}
