package xdppath

import (
	"context"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/codeflow"
	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// knownSites are functions of the kernel that call through one member, as
// their source has it. A function may make other indirect calls beside it.
var knownSites = []struct{ function, member string }{
	// The redirect path.
	{"bq_xmit_all", "net_device_ops.ndo_xdp_xmit"},
	{"__napi_poll", "napi_struct.poll"},
	{"bpf_xdp_redirect_map", "bpf_map_ops.map_redirect"},
	{"xdp_master_redirect", "net_device_ops.ndo_xdp_get_xmit_slave"},
	{"handle_softirqs", "softirq_action.action"},
	{"page_pool_alloc_netmems", "memory_provider_ops.alloc_netmems"},
	{"page_pool_return_netmem", "memory_provider_ops.release_netmem"},
	{"__iommu_unmap", "iommu_domain_ops.unmap_pages"},
	{"iommu_map_nosync", "iommu_domain_ops.map_pages"},
	{"iommu_iova_to_phys", "iommu_domain_ops.iova_to_phys"},
	{"iommu_map", "iommu_domain_ops.iotlb_sync_map"},
	// net/core/dev.c and its neighbors.
	{"__dev_open", "net_device_ops.ndo_open"},
	{"__dev_close_many", "net_device_ops.ndo_stop"},
	{"__dev_set_rx_mode", "net_device_ops.ndo_set_rx_mode"},
	{"__netif_set_mtu", "net_device_ops.ndo_change_mtu"},
	{"netif_set_mac_address", "net_device_ops.ndo_set_mac_address"},
	{"dev_get_stats", "net_device_ops.ndo_get_stats64"},
	{"netdev_get_xmit_slave", "net_device_ops.ndo_get_xmit_slave"},
	{"dev_fill_metadata_dst", "net_device_ops.ndo_fill_metadata_dst"},
	{"dev_hard_start_xmit", "net_device_ops.ndo_start_xmit"},
	// net/socket.c and net/ipv4/af_inet.c.
	{"kernel_bind", "proto_ops.bind"},
	{"kernel_listen", "proto_ops.listen"},
	{"kernel_connect", "proto_ops.connect"},
	{"kernel_getsockname", "proto_ops.getname"},
	{"kernel_getpeername", "proto_ops.getname"},
	{"kernel_sock_shutdown", "proto_ops.shutdown"},
	{"sock_mmap", "proto_ops.mmap"},
	{"sock_poll", "proto_ops.poll"},
	{"sock_common_recvmsg", "proto.recvmsg"},
	{"sock_common_setsockopt", "proto.setsockopt"},
	{"sock_common_getsockopt", "proto.getsockopt"},
	{"inet_release", "proto.close"},
	// fs.
	{"vfs_llseek", "file_operations.llseek"},
	{"vfs_fsync_range", "file_operations.fsync"},
	{"vfs_fallocate", "file_operations.fallocate"},
	{"iterate_dir", "file_operations.iterate_shared"},
	{"vfs_mkdir", "inode_operations.mkdir"},
	{"vfs_rmdir", "inode_operations.rmdir"},
	{"vfs_unlink", "inode_operations.unlink"},
	{"vfs_symlink", "inode_operations.symlink"},
	{"vfs_link", "inode_operations.link"},
	{"vfs_create", "inode_operations.create"},
	{"vfs_mknod", "inode_operations.mknod"},
	{"vfs_rename", "inode_operations.rename"},
	{"vfs_getattr_nosec", "inode_operations.getattr"},
	{"notify_change", "inode_operations.setattr"},
	{"statfs_by_dentry", "super_operations.statfs"},
	// kernel.
	{"process_one_work", "worker.current_func"},
	{"__handle_irq_event_percpu", "irqaction.handler"},
	{"clockevents_program_event", "clock_event_device.set_next_event"},
	{"bpf_map_copy_value", "bpf_map_ops.map_lookup_elem"},
	{"bpf_map_mmap", "bpf_map_ops.map_mmap"},
	{"call_timer_fn", "argument fn of call_timer_fn"},
}

// TestKnownSites walks functions whose calls are known from their source.
// It fails for a site that is named otherwise, not for one that is unknown;
// of those there may be few.
func TestKnownSites(t *testing.T) {
	k := live(t)
	named, unknown, absent := 0, 0, 0
	for _, known := range knownSites {
		s, ok := k.Symbols.Lookup(known.function)
		if !ok || !s.Text() {
			absent++
			continue
		}
		// A rare root is not followed.
		inv, err := Walk(context.Background(), k, []Root{{Function: s.Name, Addr: s.Addr,
			Stage: functions.StageReceive, Per: functions.PerRare}})
		if err != nil {
			t.Fatal(err)
		}
		var seen []string
		found, blank, own := false, false, 0
		for _, site := range inv.Sites {
			if site.Via[len(site.Via)-1] != known.function {
				continue
			}
			own++
			seen = append(seen, site.Pointer+" "+string(site.Confidence))
			// A compiler makes one call of two that have one prototype.
			for member := range strings.SplitSeq(site.Pointer, " or ") {
				found = found || strings.HasSuffix(member, known.member)
			}
			if site.Confidence == codeflow.Unknown {
				blank = true
			}
		}
		switch {
		case found:
			named++
		case own == 0:
			t.Logf("%s has no indirect branch here", known.function)
			absent++
		case blank:
			t.Logf("%s: not known; its sites are %q", known.function, seen)
			unknown++
		default:
			t.Errorf("%s: no %s in %q", known.function, known.member, seen)
		}
	}
	t.Logf("%d functions named as their source has it, %d not known, %d absent", named, unknown, absent)
	if named < 30 || unknown*8 > named {
		t.Errorf("%d functions were named, %d were not", named, unknown)
	}
}
