// Package filter compiles pcap filter expressions (pcap-filter(7)) to classic
// BPF, and classic BPF to instructions for an XDP program.
//
// Of the language it knows, and refuses all else:
//
//	[ip|ip6|arp|tcp|udp|sctp] [src|dst] host, net, port, portrange ID
//	ether [src|dst] host ID; ether proto N; ether broadcast|multicast
//	ip proto N; ip6 proto N
//	ip, ip6, arp, rarp, tcp, udp, sctp, icmp, icmp6, vlan [N], less N, greater N
//	PROTO[OFFSET:SIZE] [& MASK] OPERATOR N; len OPERATOR N
//	and, or, not, parentheses; and binds no tighter than or
//
// An ID without qualifiers has those of the one before. What is missing can be
// given as classic BPF, as tcpdump -ddd writes it.
package filter
