//! Behaviour that operators set at run time, by the names of IPVS's sysctls
//! (`net.ipv4.vs.*`, see Linux's Documentation/networking/ipvs-sysctl.rst).

/// Every tunable that workers read. Timeouts in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// Established TCP connections (`--set`), s.
    pub timeout_tcp_s: u32,
    /// TCP connections in FIN_WAIT (`--set`), s.
    pub timeout_tcp_fin_s: u32,
    /// UDP connections (`--set`), s.
    pub timeout_udp_s: u32,
    /// A packet whose server is gone ends its connection.
    pub expire_nodest_conn: bool,
    /// A template whose server has weight 0 is not followed.
    pub expire_quiescent_template: bool,
    /// When a SYN may start a connection anew: 0 never, any other value after TIME_WAIT or
    /// CLOSE, with bit 1 also in FIN_WAIT when replies are not seen.
    pub conn_reuse_mode: u32,
    /// A TCP connection may begin with any packet but RST.
    pub sloppy_tcp: bool,
    /// An SCTP association may begin with any chunk.
    pub sloppy_sctp: bool,
    /// Answer port unreachable to real servers whose packets belong to no connection.
    pub nat_icmp_send: bool,
    /// Honour path MTU: refuse what is too big and must not be fragmented.
    pub pmtu_disc: bool,
    /// ICMP errors may begin connections.
    pub schedule_icmp: bool,
    /// Ignore packets that were tunnelled before.
    pub ignore_tunneled: bool,
    /// Without a usable server, pass the packet on as the host would (`cache_bypass`).
    pub cache_bypass: bool,
    /// Drop 1 of `am_droprate` packets: 0 never, 1 when memory is short, 2 automatic, 3 always.
    pub drop_packet: u32,
    /// The share for `drop_packet`: one of this many.
    pub am_droprate: u32,
    /// End half-open connections and unproven templates early, 1/32 of them each second: as
    /// `drop_packet`.
    pub drop_entry: u32,
    /// Shorter TCP timeouts under attack: as `drop_packet`.
    pub secure_tcp: u32,
}

impl Default for Tunables {
    fn default() -> Self {
        Self {
            timeout_tcp_s: 900,
            timeout_tcp_fin_s: 120,
            timeout_udp_s: 300,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            conn_reuse_mode: 1,
            sloppy_tcp: false,
            sloppy_sctp: false,
            nat_icmp_send: false,
            pmtu_disc: true,
            schedule_icmp: false,
            ignore_tunneled: false,
            cache_bypass: false,
            drop_packet: 0,
            am_droprate: 10,
            drop_entry: 0,
            secure_tcp: 0,
        }
    }
}
