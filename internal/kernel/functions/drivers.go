package functions

import "strings"

// driverFunctions are those that poll and transmit XDP frames, by driver; it may be built
// in or a module. As of Linux 6.18; those that a kernel lacks are skipped.
var driverFunctions = []struct{ driver, names string }{
	{"veth", "veth_poll veth_xdp_rcv veth_xdp_rcv_one veth_xdp_rcv_skb veth_xdp_rcv_bulk_skb veth_xdp_xmit " +
		"veth_ndo_xdp_xmit veth_xdp_tx veth_xdp_flush_bq"},
	{"virtio_net", "virtnet_poll virtnet_receive receive_buf receive_small receive_mergeable virtnet_xdp_handler " +
		"virtnet_xdp_xmit __virtnet_xdp_xmit_one virtqueue_add_outbuf virtqueue_add_inbuf " +
		"virtqueue_get_buf_ctx virtqueue_kick_prepare virtqueue_notify free_old_xmit __free_old_xmit"},
	{"tun", "tun_xdp_one tun_xdp_xmit tun_xdp_act"},
	{"ixgbe", "ixgbe_poll ixgbe_clean_rx_irq ixgbe_run_xdp ixgbe_xdp_xmit ixgbe_xmit_xdp_ring"},
	{"ixgbevf", "ixgbevf_poll ixgbevf_clean_rx_irq"},
	{"i40e", "i40e_napi_poll i40e_clean_rx_irq i40e_run_xdp i40e_xdp_xmit i40e_xmit_xdp_ring " +
		"i40e_xmit_xdp_tx_ring"},
	{"ice", "ice_napi_poll ice_clean_rx_irq ice_run_xdp ice_xdp_xmit __ice_xmit_xdp_ring ice_clean_xdp_irq"},
	{"iavf", "iavf_napi_poll"},
	{"igb", "igb_poll igb_clean_rx_irq igb_run_xdp igb_xdp_xmit igb_xmit_xdp_ring"},
	{"igc", "igc_poll igc_clean_rx_irq igc_xdp_run_prog igc_xdp_xmit"},
	{"mlx5_core", "mlx5e_napi_poll mlx5e_poll_rx_cq mlx5e_handle_rx_cqe mlx5e_handle_rx_cqe_mpwrq " +
		"mlx5e_skb_from_cqe_linear mlx5e_skb_from_cqe_mpwrq_linear mlx5e_xdp_handle mlx5e_xdp_xmit " +
		"mlx5e_xmit_xdp_frame mlx5e_xmit_xdp_frame_mpwqe mlx5e_poll_xdpsq_cq mlx5e_free_xdpsq_desc"},
	{"mlx4_en", "mlx4_en_poll_rx_cq mlx4_en_process_rx_cq mlx4_en_xmit_frame"},
	{"bnxt_en", "bnxt_poll bnxt_rx_pkt bnxt_rx_xdp bnxt_xdp_xmit"},
	{"ena", "ena_io_poll ena_clean_rx_irq ena_xdp_xmit ena_xdp_xmit_frame"},
	{"gve", "gve_napi_poll gve_rx_dqo gve_xdp_xmit"},
	{"mana", "mana_poll mana_xdp_xmit"},
	{"hv_netvsc", "netvsc_poll netvsc_run_xdp netvsc_ndo_xdp_xmit"},
	{"xen_netfront", "xennet_poll xennet_xdp_xmit"},
	{"vmxnet3", "vmxnet3_poll_rx_only vmxnet3_process_xdp vmxnet3_xdp_xmit"},
	{"stmmac", "stmmac_napi_poll_rx stmmac_xdp_xmit"},
	{"qede", "qede_poll qede_xdp_transmit"},
	{"sfc", "sfc_poll efx_poll efx_xdp_tx_buffers efx_xdp_xmit"},
	{"nfp", "nfp_nfd3_poll"},
}

func drivers() []Function {
	var out []Function
	for _, d := range driverFunctions {
		for _, name := range strings.Fields(d.names) {
			f := Function{Name: name, Absent: "driver " + d.driver, Roles: Driver}
			if name == "veth_xdp_rcv" || name == "veth_xdp_rcv_one" {
				f.Roles |= Drops
			}
			out = append(out, f)
		}
	}
	return out
}
