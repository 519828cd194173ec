//! Every word of ipvsadm's grammar, as one table. The parser, the help text and (later)
//! completion read it, so a word exists in exactly one place.

use super::slot::Slot;

/// What a first word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `-A`
    AddService,
    /// `-E`
    EditService,
    /// `-D`
    DeleteService,
    /// `-C`
    Flush,
    /// `-L`
    List,
    /// `-a`
    AddServer,
    /// `-e`
    EditServer,
    /// `-d`
    DeleteServer,
    /// `--set`
    SetTimeouts,
    /// `--start-daemon`
    StartDaemon,
    /// `--stop-daemon`
    StopDaemon,
    /// `-R`
    Restore,
    /// `-S`
    Save,
    /// `-Z`
    Zero,
    /// `-h`
    Help,
    /// `-v`
    Version,
}

impl Verb {
    /// The name that messages use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::List => "list",
            Self::AddServer => "add-server",
            Self::EditServer => "edit-server",
            Self::DeleteServer => "delete-server",
            Self::SetTimeouts => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::Zero => "zero",
            Self::Help => "help",
            Self::Version => "version",
        }
    }
}

/// What an option does. Several may fill the same [`Slot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named by its option")]
pub enum Flag {
    TcpService,
    UdpService,
    SctpService,
    FwmarkService,
    Ipv6,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    Masquerading,
    Ipip,
    Gatewaying,
    Weight,
    UpperThreshold,
    LowerThreshold,
    Numeric,
    Connection,
    McastInterface,
    SyncId,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    Sort,
    Exact,
    OnePacket,
    Engine,
    SchedulerFlags,
    SyncMaxLength,
    McastGroup,
    McastPort,
    McastTtl,
    TunnelInfo,
    TunnelType,
    TunnelPort,
    TunnelNoChecksum,
    TunnelChecksum,
    TunnelRemoteChecksum,
}

impl Flag {
    /// The slot that this option fills, where it fills one.
    pub const fn slot(self) -> Option<Slot> {
        Some(match self {
            Self::Ipv6 | Self::Sort => return None,
            Self::TcpService | Self::UdpService | Self::SctpService | Self::FwmarkService => {
                Slot::Service
            }
            Self::Masquerading | Self::Ipip | Self::Gatewaying => Slot::Forwarding,
            Self::Scheduler => Slot::Scheduler,
            Self::Persistent => Slot::Persistent,
            Self::Netmask => Slot::Netmask,
            Self::RealServer => Slot::Server,
            Self::Weight => Slot::Weight,
            Self::UpperThreshold => Slot::UpperThreshold,
            Self::LowerThreshold => Slot::LowerThreshold,
            Self::Numeric => Slot::Numeric,
            Self::Connection => Slot::Connection,
            Self::McastInterface => Slot::McastInterface,
            Self::SyncId => Slot::SyncId,
            Self::Timeout => Slot::Timeout,
            Self::Daemon => Slot::Daemon,
            Self::Stats => Slot::Stats,
            Self::Rate => Slot::Rate,
            Self::Thresholds => Slot::Thresholds,
            Self::PersistentConn => Slot::PersistentConn,
            Self::NoSort => Slot::NoSort,
            Self::Exact => Slot::Exact,
            Self::OnePacket => Slot::OnePacket,
            Self::Engine => Slot::Engine,
            Self::SchedulerFlags => Slot::SchedulerFlags,
            Self::SyncMaxLength => Slot::SyncMaxLength,
            Self::McastGroup => Slot::McastGroup,
            Self::McastPort => Slot::McastPort,
            Self::McastTtl => Slot::McastTtl,
            Self::TunnelInfo => Slot::TunnelInfo,
            Self::TunnelType => Slot::TunnelType,
            Self::TunnelPort => Slot::TunnelPort,
            Self::TunnelNoChecksum => Slot::TunnelNoChecksum,
            Self::TunnelChecksum => Slot::TunnelChecksum,
            Self::TunnelRemoteChecksum => Slot::TunnelRemoteChecksum,
        })
    }
}

/// Whether a word takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// No value.
    None,
    /// A value, here by the name that the help text gives it.
    Required(&'static str),
    /// A value unless the next word begins with `-` or there is none.
    Optional(&'static str),
}

/// What a word stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A command.
    Verb(Verb),
    /// An option.
    Flag(Flag),
}

/// One word of the grammar.
#[derive(Debug)]
pub struct Word {
    /// Its long name, without `--`; empty where there is none.
    pub long: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// Whether it takes a value.
    pub argument: Argument,
    /// What it stands for.
    pub meaning: Meaning,
    /// What it does, in a few words.
    pub help: &'static str,
}

const fn verb(short: Option<char>, long: &'static str, verb: Verb, help: &'static str) -> Word {
    Word {
        long,
        short,
        argument: Argument::None,
        meaning: Meaning::Verb(verb),
        help,
    }
}

const fn flag(short: Option<char>, long: &'static str, flag: Flag, help: &'static str) -> Word {
    Word {
        long,
        short,
        argument: Argument::None,
        meaning: Meaning::Flag(flag),
        help,
    }
}

const fn with(argument: Argument, word: Word) -> Word {
    Word { argument, ..word }
}

const STATE: Argument = Argument::Required("master|backup");
const ADDRESS: Argument = Argument::Required("HOST[:PORT]");
const NUMBER: Argument = Argument::Required("N");

/// The whole grammar, in the order of the help text.
pub static WORDS: &[Word] = &[
    verb(
        Some('A'),
        "add-service",
        Verb::AddService,
        "add a virtual service",
    ),
    verb(
        Some('E'),
        "edit-service",
        Verb::EditService,
        "change a virtual service",
    ),
    verb(
        Some('D'),
        "delete-service",
        Verb::DeleteService,
        "remove a virtual service",
    ),
    verb(
        Some('C'),
        "clear",
        Verb::Flush,
        "remove every virtual service",
    ),
    verb(
        Some('a'),
        "add-server",
        Verb::AddServer,
        "add a real server to a service",
    ),
    verb(
        Some('e'),
        "edit-server",
        Verb::EditServer,
        "change a real server",
    ),
    verb(
        Some('d'),
        "delete-server",
        Verb::DeleteServer,
        "remove a real server",
    ),
    verb(
        Some('L'),
        "list",
        Verb::List,
        "list the table, connections or timeouts",
    ),
    verb(Some('l'), "list", Verb::List, "the same as -L"),
    verb(
        Some('Z'),
        "zero",
        Verb::Zero,
        "set counters to zero, of one service or of all",
    ),
    verb(
        Some('S'),
        "save",
        Verb::Save,
        "print the table as lines that -R reads",
    ),
    verb(
        Some('R'),
        "restore",
        Verb::Restore,
        "carry out the lines on standard input",
    ),
    verb(
        None,
        "set",
        Verb::SetTimeouts,
        "set the timeouts TCP TCPFIN UDP, s; 0 keeps one",
    ),
    with(
        STATE,
        verb(
            None,
            "start-daemon",
            Verb::StartDaemon,
            "start a synchronization daemon",
        ),
    ),
    with(
        STATE,
        verb(
            None,
            "stop-daemon",
            Verb::StopDaemon,
            "stop a synchronization daemon",
        ),
    ),
    verb(Some('h'), "help", Verb::Help, "print this help"),
    verb(Some('v'), "version", Verb::Version, "print the version"),
    with(
        ADDRESS,
        flag(Some('t'), "tcp-service", Flag::TcpService, "a TCP service"),
    ),
    with(
        ADDRESS,
        flag(Some('u'), "udp-service", Flag::UdpService, "a UDP service"),
    ),
    with(
        ADDRESS,
        flag(None, "sctp-service", Flag::SctpService, "an SCTP service"),
    ),
    with(
        Argument::Required("MARK"),
        flag(
            Some('f'),
            "fwmark-service",
            Flag::FwmarkService,
            "packets with a firewall mark",
        ),
    ),
    flag(
        Some('6'),
        "ipv6",
        Flag::Ipv6,
        "the mark is for IPv6 packets (after -f)",
    ),
    with(
        Argument::Required("NAME"),
        flag(
            Some('s'),
            "scheduler",
            Flag::Scheduler,
            "rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh twos; default wlc",
        ),
    ),
    with(
        Argument::Optional("SECONDS"),
        flag(
            Some('p'),
            "persistent",
            Flag::Persistent,
            "persistence; default 360 s",
        ),
    ),
    with(
        Argument::Required("MASK"),
        flag(
            Some('M'),
            "netmask",
            Flag::Netmask,
            "clients that persist together",
        ),
    ),
    with(
        Argument::Required("ENGINE"),
        flag(None, "pe", Flag::Engine, "persistence engine: sip"),
    ),
    with(
        Argument::Required("FLAG,..."),
        flag(
            Some('b'),
            "sched-flags",
            Flag::SchedulerFlags,
            "sh-fallback sh-port mh-fallback mh-port flag-1 flag-2 flag-3",
        ),
    ),
    flag(
        Some('o'),
        "ops",
        Flag::OnePacket,
        "schedule every packet anew (UDP)",
    ),
    with(
        ADDRESS,
        flag(
            Some('r'),
            "real-server",
            Flag::RealServer,
            "the real server",
        ),
    ),
    flag(
        Some('g'),
        "gatewaying",
        Flag::Gatewaying,
        "direct routing (the default)",
    ),
    flag(Some('i'), "ipip", Flag::Ipip, "tunnel"),
    flag(Some('m'), "masquerading", Flag::Masquerading, "NAT"),
    with(
        Argument::Required("TYPE"),
        flag(
            None,
            "tun-type",
            Flag::TunnelType,
            "ipip gue gre; default ipip",
        ),
    ),
    with(
        Argument::Required("PORT"),
        flag(
            None,
            "tun-port",
            Flag::TunnelPort,
            "the tunnel's UDP port (gue)",
        ),
    ),
    flag(
        None,
        "tun-nocsum",
        Flag::TunnelNoChecksum,
        "tunnel without checksum (gue, gre)",
    ),
    flag(
        None,
        "tun-csum",
        Flag::TunnelChecksum,
        "tunnel with checksum (gue, gre)",
    ),
    flag(
        None,
        "tun-remcsum",
        Flag::TunnelRemoteChecksum,
        "tunnel with remote checksum offload (gue)",
    ),
    with(
        NUMBER,
        flag(
            Some('w'),
            "weight",
            Flag::Weight,
            "the server's share; default 1",
        ),
    ),
    with(
        NUMBER,
        flag(
            Some('x'),
            "u-threshold",
            Flag::UpperThreshold,
            "no new connections from here",
        ),
    ),
    with(
        NUMBER,
        flag(
            Some('y'),
            "l-threshold",
            Flag::LowerThreshold,
            "new connections again below",
        ),
    ),
    flag(Some('n'), "numeric", Flag::Numeric, "numbers, not names"),
    flag(
        Some('c'),
        "connection",
        Flag::Connection,
        "list connections",
    ),
    flag(None, "timeout", Flag::Timeout, "list the timeouts"),
    flag(
        None,
        "daemon",
        Flag::Daemon,
        "list the synchronization daemons",
    ),
    flag(None, "stats", Flag::Stats, "with counters"),
    flag(None, "rate", Flag::Rate, "with rates per second"),
    flag(None, "thresholds", Flag::Thresholds, "with thresholds"),
    flag(
        None,
        "persistent-conn",
        Flag::PersistentConn,
        "with persistent connections",
    ),
    flag(None, "tun-info", Flag::TunnelInfo, "with tunnels"),
    flag(Some('X'), "exact", Flag::Exact, "numbers in full"),
    flag(None, "nosort", Flag::NoSort, "in the table's own order"),
    flag(None, "sort", Flag::Sort, "sorted (the default)"),
    with(
        Argument::Required("DEVICE"),
        flag(
            None,
            "mcast-interface",
            Flag::McastInterface,
            "default eth0",
        ),
    ),
    with(NUMBER, flag(None, "syncid", Flag::SyncId, "0 to 255")),
    with(
        NUMBER,
        flag(None, "sync-maxlen", Flag::SyncMaxLength, "1 to 65507"),
    ),
    with(
        Argument::Required("GROUP"),
        flag(None, "mcast-group", Flag::McastGroup, "default 224.0.0.81"),
    ),
    with(
        NUMBER,
        flag(None, "mcast-port", Flag::McastPort, "default 8848"),
    ),
    with(NUMBER, flag(None, "mcast-ttl", Flag::McastTtl, "default 1")),
];

/// The word with this long name.
pub fn long(name: &str) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.long == name)
}

/// The word with this letter.
pub fn short(letter: char) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.short == Some(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_unique() {
        for word in WORDS {
            if let Some(letter) = word.short {
                assert!(std::ptr::eq(short(letter).unwrap(), word), "{letter}");
            }
        }
    }
}
