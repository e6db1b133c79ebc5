// Package ksym looks up kernel symbols by name and by address.
//
// The source is /proc/kallsyms, which shows addresses only to a reader with
// CAP_SYSLOG and only when kernel.kptr_restrict is below 2. Without them
// every function here that reads the live file returns a [feature.Missing].
package ksym
