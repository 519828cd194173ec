//! Every readable word of the shell, as one table: parsing, completion, `?`, abbreviation
//! and the pointing at wrong words all read it, so they cannot disagree.

/// What may be typed.
#[derive(Debug)]
pub enum Node {
    /// A fixed word.
    Word(Word),
    /// A word of the user's.
    Value(Value),
    /// One after the other.
    Seq(&'static [Node]),
    /// One of these.
    Any(&'static [Node]),
    /// This or nothing.
    Maybe(&'static Node),
    /// Any of these, each once at most, in any order.
    Options(&'static [Node]),
}

/// A fixed word.
#[derive(Debug)]
pub struct Word {
    /// The word.
    pub name: &'static str,
    /// What it is for, in a few words.
    pub help: &'static str,
}

/// A place for a word of the user's.
#[derive(Debug)]
pub struct Value {
    /// What it must be.
    pub kind: Kind,
    /// How help texts name it.
    pub name: &'static str,
    /// What it is, in a few words.
    pub help: &'static str,
}

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ADDRESS:PORT` of a service to be.
    NewService,
    /// `ADDRESS:PORT` of a service.
    Service,
    /// A mark of a service to be.
    NewMark,
    /// The mark of a service.
    ServiceMark,
    /// `ADDRESS[:PORT]` of a server to be.
    NewServer,
    /// `ADDRESS[:PORT]` of a server.
    Server,
    /// `ADDRESS[:PORT]` of any service's server.
    AnyServer,
    /// An address.
    Address,
    /// `ADDRESS[/LENGTH]`.
    Network,
    /// A scheduler.
    Scheduler,
    /// Scheduler flags with commas between.
    Flags,
    /// A persistence engine.
    Engine,
    /// An IPv4 mask or an IPv6 prefix length.
    Netmask,
    /// A persistence timeout, s.
    Persistence,
    /// A time, s, at least 1.
    Seconds,
    /// A time to wait for a confirmation, s.
    Confirm,
    /// A timeout, s; 0 keeps the present one.
    Timeout,
    /// A number from 0 to 2147483647.
    Number,
    /// A port.
    Port,
    /// Ports with commas between.
    Ports,
    /// The name of a tunable.
    Tunable,
    /// The value of a tunable.
    Setting,
    /// The state of a connection.
    State,
}

const fn w(name: &'static str, help: &'static str) -> Node {
    Node::Word(Word { name, help })
}

const fn v(kind: Kind, name: &'static str, help: &'static str) -> Node {
    Node::Value(Value { kind, name, help })
}

const NEW_SERVICE: Node = Node::Any(&[
    Node::Seq(&[w("tcp", "a TCP service"), NEW_ENDPOINT]),
    Node::Seq(&[w("udp", "a UDP service"), NEW_ENDPOINT]),
    Node::Seq(&[w("sctp", "an SCTP service"), NEW_ENDPOINT]),
    Node::Seq(&[
        w("fwmark", "packets with a firewall mark"),
        v(Kind::NewMark, "MARK", "the mark, 1 to 4294967295"),
        Node::Maybe(&IPV6),
    ]),
]);
const NEW_ENDPOINT: Node = v(
    Kind::NewService,
    "ADDRESS:PORT",
    "virtual address and port; port 0 is every port (persistent only)",
);
const SERVICE: Node = Node::Any(&[
    Node::Seq(&[w("tcp", "a TCP service"), ENDPOINT]),
    Node::Seq(&[w("udp", "a UDP service"), ENDPOINT]),
    Node::Seq(&[w("sctp", "an SCTP service"), ENDPOINT]),
    Node::Seq(&[
        w("fwmark", "the service of a firewall mark"),
        v(Kind::ServiceMark, "MARK", "its mark"),
        Node::Maybe(&IPV6),
    ]),
]);
const ENDPOINT: Node = v(Kind::Service, "ADDRESS:PORT", "virtual address and port");
const IPV6: Node = w("ipv6", "the mark of IPv6 packets");
const SERVER: Node = v(Kind::Server, "ADDRESS[:PORT]", "the real server");

const SCHEDULER: Node = Node::Seq(&[
    w(
        "scheduler",
        "how connections are spread; wlc where not given",
    ),
    v(Kind::Scheduler, "NAME", "the scheduler"),
]);
const PERSISTENT: Node = Node::Seq(&[
    w("persistent", "a client stays with its server"),
    Node::Maybe(&v(
        Kind::Persistence,
        "SECONDS",
        "for how long, s; 360 where not given",
    )),
]);
const NETMASK: Node = Node::Seq(&[
    w("netmask", "clients that persist together"),
    v(Kind::Netmask, "MASK", "255.255.255.0 or, for IPv6, 64"),
]);
const ENGINE: Node = Node::Seq(&[
    w("engine", "the persistence engine"),
    v(Kind::Engine, "NAME", "sip"),
]);
const FLAGS: Node = Node::Seq(&[
    w("flags", "the scheduler's flags"),
    v(
        Kind::Flags,
        "FLAG,...",
        "sh-fallback, sh-port, mh-fallback, mh-port ...",
    ),
]);
const ONE_PACKET: Node = w("one-packet", "schedule every packet anew (UDP)");

const FORWARDING: Node = Node::Any(&[
    w(
        "nat",
        "rewrite addresses; replies come back through the director",
    ),
    w(
        "route",
        "direct routing: rewrite the MAC address only (the default)",
    ),
    Node::Seq(&[
        w("tunnel", "wrap packets"),
        Node::Maybe(&Node::Any(&[
            w("ipip", "in IP (the default)"),
            Node::Seq(&[
                w("gue", "in UDP"),
                v(Kind::Port, "PORT", "the tunnel's UDP port"),
                CHECKSUM,
            ]),
            Node::Seq(&[w("gre", "in GRE"), CHECKSUM]),
        ])),
    ]),
]);
const CHECKSUM: Node = Node::Maybe(&Node::Seq(&[
    w("checksum", "what the tunnel's header carries"),
    Node::Any(&[
        w("none", "no checksum (the default)"),
        w("full", "the outer checksum"),
        w("remote", "remote checksum offload (gue)"),
    ]),
]));
const SERVER_OPTIONS: &[Node] = &[
    FORWARDING,
    Node::Seq(&[
        w("weight", "its share of connections"),
        v(Kind::Number, "N", "0 drains; 1 where not given"),
    ]),
    Node::Seq(&[
        w("upper", "no new connections from this many"),
        v(Kind::Number, "N", "connections; 0 sets no limit"),
    ]),
    Node::Seq(&[
        w("lower", "new connections again below this many"),
        v(Kind::Number, "N", "connections; 0 is 75 % of upper"),
    ]),
];

const ADD: Node = Node::Seq(&[
    w("add", "add a service or a server"),
    Node::Any(&[
        Node::Seq(&[
            w("service", "a virtual service"),
            NEW_SERVICE,
            Node::Options(&[SCHEDULER, PERSISTENT, NETMASK, ENGINE, FLAGS, ONE_PACKET]),
        ]),
        Node::Seq(&[
            w("server", "a real server of a service"),
            SERVICE,
            v(
                Kind::NewServer,
                "ADDRESS[:PORT]",
                "the real server; the service's port where not given",
            ),
            Node::Options(SERVER_OPTIONS),
        ]),
    ]),
]);

const EDIT: Node = Node::Seq(&[
    w("edit", "begin a candidate; or change a service or a server"),
    Node::Maybe(&Node::Any(&[
        Node::Seq(&[
            w("service", "what is not named stays as it is"),
            SERVICE,
            Node::Options(&[
                SCHEDULER,
                Node::Any(&[PERSISTENT, w("not-persistent", "end persistence")]),
                NETMASK,
                Node::Any(&[ENGINE, w("no-engine", "without a persistence engine")]),
                Node::Any(&[FLAGS, w("no-flags", "without flags of the scheduler")]),
                Node::Any(&[ONE_PACKET, w("not-one-packet", "schedule connections")]),
            ]),
        ]),
        Node::Seq(&[
            w("server", "what is not named stays as it is"),
            SERVICE,
            SERVER,
            Node::Options(SERVER_OPTIONS),
        ]),
    ])),
]);

const DELETE: Node = Node::Seq(&[
    w("delete", "remove a service or a server"),
    Node::Any(&[
        Node::Seq(&[w("service", "with all of its servers"), SERVICE]),
        Node::Seq(&[w("server", "its connections end"), SERVICE, SERVER]),
    ]),
]);

const SET: Node = Node::Seq(&[
    w("set", "set a tunable or the timeouts"),
    Node::Any(&[
        Node::Seq(&[
            w("timeouts", "of connections, s"),
            Node::Options(&[
                Node::Seq(&[w("tcp", "established TCP"), TIMEOUT]),
                Node::Seq(&[w("tcpfin", "TCP after a FIN"), TIMEOUT]),
                Node::Seq(&[w("udp", "UDP"), TIMEOUT]),
            ]),
        ]),
        Node::Seq(&[
            v(Kind::Tunable, "NAME", "a tunable"),
            v(Kind::Setting, "VALUE", "its value"),
        ]),
    ]),
]);
const TIMEOUT: Node = v(Kind::Timeout, "SECONDS", "s; 0 keeps the present one");

const MARK_RULE: Node = Node::Seq(&[
    v(Kind::NewMark, "MARK", "the mark, 1 to 4294967295"),
    v(Kind::Address, "ADDRESS", "the packets' destination"),
    Node::Any(&[
        w("tcp", "TCP packets"),
        w("udp", "UDP packets"),
        w("sctp", "SCTP packets"),
    ]),
    v(
        Kind::Ports,
        "PORT,...",
        "their destination ports; 0 is every port",
    ),
]);
const FWMARK: Node = Node::Seq(&[
    w("fwmark", "give packets a firewall mark"),
    Node::Any(&[
        Node::Seq(&[w("add", "mark packets"), MARK_RULE]),
        Node::Seq(&[w("delete", "mark them no longer"), MARK_RULE]),
        Node::Seq(&[w("list", "show what is marked"), Node::Options(&[JSON])]),
    ]),
]);

const JSON: Node = w("json", "as JSON");
const BY_SERVICE: Node = Node::Seq(&[w("service", "only of this service"), SERVICE]);
const BY_SERVER: Node = Node::Seq(&[
    w("server", "only of this real server"),
    v(Kind::AnyServer, "ADDRESS[:PORT]", "the real server"),
]);
const BY_READINESS: Node = Node::Seq(&[
    w("state", "only servers in this state"),
    Node::Any(&[
        w("ready", "takes new connections"),
        w("drained", "weight 0: takes none"),
    ]),
]);
const COLUMNS: Node = Node::Any(&[
    w("stats", "with counters"),
    w("rates", "with rates per second"),
    w("thresholds", "with thresholds"),
]);

const SHOW: Node = Node::Seq(&[
    w("show", "show the director's state"),
    Node::Any(&[
        Node::Seq(&[
            w("services", "services with their servers"),
            Node::Options(&[BY_SERVICE, BY_SERVER, BY_READINESS, COLUMNS, JSON]),
        ]),
        Node::Seq(&[
            w("servers", "real servers, one a line"),
            Node::Options(&[BY_SERVICE, BY_SERVER, BY_READINESS, COLUMNS, JSON]),
        ]),
        Node::Seq(&[
            w("connections", "connections and persistence templates"),
            Node::Options(&[
                BY_SERVICE,
                BY_SERVER,
                Node::Seq(&[
                    w("client", "only of these clients"),
                    v(Kind::Network, "ADDRESS[/LENGTH]", "an address or a network"),
                ]),
                Node::Seq(&[
                    w("state", "only in this state"),
                    v(Kind::State, "STATE", "ESTABLISHED, FIN_WAIT ..."),
                ]),
                Node::Seq(&[
                    w("limit", "so many at most"),
                    v(Kind::Number, "N", "connections"),
                ]),
                w("count", "only how many, by state"),
                JSON,
            ]),
        ]),
        Node::Seq(&[
            w("counters", "drops by reason, and events"),
            Node::Options(&[w("all", "also those at 0"), JSON]),
        ]),
        Node::Seq(&[
            w("tunables", "behaviour that can be set"),
            Node::Options(&[v(Kind::Tunable, "NAME", "only this one"), JSON]),
        ]),
        Node::Seq(&[
            w("fwmarks", "firewall marks by destination"),
            Node::Options(&[JSON]),
        ]),
        Node::Seq(&[w("timeouts", "of connections"), Node::Options(&[JSON])]),
        Node::Seq(&[
            w("status", "version, sizes, the commit that waits"),
            Node::Options(&[JSON]),
        ]),
    ]),
]);

const WATCH: Node = Node::Seq(&[
    w("watch", "show again and again; a key ends it"),
    v(Kind::Seconds, "SECONDS", "how often, s"),
    Node::Maybe(&Node::Seq(&[
        w("count", "not without end"),
        v(Kind::Number, "N", "how many times"),
    ])),
    SHOW,
]);

const COMMIT: Node = Node::Seq(&[
    w("commit", "put the candidate in force, all of it or nothing"),
    Node::Maybe(&Node::Seq(&[
        w("confirmed", "the director takes it back unless you confirm"),
        v(
            Kind::Confirm,
            "SECONDS",
            "how long it waits for `confirm`, s",
        ),
    ])),
]);

/// The whole grammar.
pub static GRAMMAR: Node = Node::Any(&[
    SHOW,
    WATCH,
    ADD,
    EDIT,
    DELETE,
    Node::Seq(&[
        w("drain", "no new connections for a server (weight 0)"),
        w("server", "the real server"),
        SERVICE,
        SERVER,
    ]),
    SET,
    FWMARK,
    Node::Seq(&[
        w("zero", "set counters to zero"),
        Node::Maybe(&Node::Seq(&[w("service", "of this one only"), SERVICE])),
    ]),
    Node::Seq(&[
        w("clear", "remove every service"),
        w("services", "every one"),
    ]),
    Node::Seq(&[
        w("diff", "what the candidate would change"),
        Node::Options(&[JSON]),
    ]),
    COMMIT,
    w("confirm", "keep what `commit confirmed` changed"),
    w("return", "take back what `commit confirmed` changed"),
    w("discard", "forget the candidate"),
    w("help", "what can be done here"),
    w("quit", "leave"),
    w("exit", "leave"),
]);
