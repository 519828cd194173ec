//! What an operator is told of a port: that it is down, has no link, is too wide, is a member
//! of another device; and that it is well again. Each change once.

use crate::director::neighbours::links::{Kind, PortFacts};

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// All is well again.
    Good(String),
    /// Something is to be done.
    Bad(String),
}

impl Word {
    /// Writes it to the log.
    pub fn say(&self) {
        match self {
            Self::Good(text) => tracing::info!("{text}"),
            Self::Bad(text) => tracing::warn!("{text}"),
        }
    }
}

/// How a port was when it was last spoken of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Its device is down, or without a link.
    no_link: Option<NoLink>,
    /// The MTU that is too large.
    too_wide: Option<u32>,
    /// The name of the device whose member it is.
    member_of: Option<String>,
}

/// Why no frames come or leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoLink {
    Down,
    NoCarrier,
}

impl Health {
    /// What is to be said of the port that fares so now. Packets of up to `largest` bytes can
    /// be taken.
    pub fn change(&mut self, name: &str, facts: &PortFacts, largest: u32) -> Vec<Word> {
        let now = Self::of(facts, largest);
        let mut words = Vec::new();
        if now.no_link != self.no_link {
            words.push(link_word(name, now.no_link));
        }
        if now.too_wide != self.too_wide {
            words.push(width_word(name, now.too_wide, largest));
        }
        if now.member_of != self.member_of {
            words.push(member_word(name, facts));
        }
        *self = now;
        words
    }

    fn of(facts: &PortFacts, largest: u32) -> Self {
        Self {
            no_link: match (facts.is_up, facts.has_carrier) {
                (false, _) => Some(NoLink::Down),
                (true, false) => Some(NoLink::NoCarrier),
                (true, true) => None,
            },
            too_wide: Some(facts.mtu).filter(|mtu| *mtu > largest),
            member_of: facts.master.as_ref().map(|master| master.name.clone()),
        }
    }
}

fn link_word(name: &str, now: Option<NoLink>) -> Word {
    match now {
        Some(NoLink::Down) => Word::Bad(format!(
            "port {name} is down: no frame comes or leaves by it until `ip link set {name} up`"
        )),
        Some(NoLink::NoCarrier) => Word::Bad(format!(
            "port {name} has no link (no carrier): look at the cable, the switch or the far end"
        )),
        None => Word::Good(format!("port {name} has a link again")),
    }
}

fn width_word(name: &str, now: Option<u32>, largest: u32) -> Word {
    match now {
        Some(mtu) => Word::Bad(format!(
            "port {name} has an MTU of {mtu} now, and lvx takes packets of {largest} bytes at \
             most: longer ones are lost (`frames_too_long` in `lvx counters`): `ip link set \
             {name} mtu {largest}`, or end lvx and start it again with that MTU"
        )),
        None => Word::Good(format!("port {name} has an MTU that lvx can take again")),
    }
}

fn member_word(name: &str, facts: &PortFacts) -> Word {
    match &facts.master {
        Some(master) => Word::Bad(format!(
            "port {name} is a member of the {} {1} now, which takes its frames: start lvx with \
             `--port {1}` instead, or `ip link set {name} nomaster`",
            master.kind.word(),
            master.name
        )),
        None => Word::Good(format!("port {name} is no other device's member any more")),
    }
}

/// What is said of a port whose program runs outside of its driver. `takes_large`: frames
/// that an offload made larger than a wire's can be taken.
pub fn generic_words(name: &str, kind: Kind, why: &str, takes_large: bool) -> Vec<Word> {
    let cure = match kind {
        Kind::Bond | Kind::Team => {
            "for full speed give the members as ports of their own, without the bond, and let \
             routes share them (ECMP)"
        }
        Kind::Macvlan => "give the device below as the port: its macvlans are served with it",
        Kind::Bridge => "for full speed give a network card that is no bridge's member",
        _ => {
            "the kernel's log may say more (`dmesg | tail`); a smaller MTU, fewer queues or \
             features turned off may help"
        }
    };
    let mut words = vec![Word::Bad(format!(
        "port {name} has generic XDP, which is several times slower than a driver's ({why}): {cure}"
    ))];
    if !takes_large {
        words.push(Word::Bad(format!(
            "port {name}: packets that a sender on this machine leaves to hardware to cut come \
             whole, and are lost (`frames_too_long` in `lvx counters`) as this kernel cannot give \
             them to lvx (Linux 6.6 can): on such senders' devices `{}`",
            sender_cure("DEV")
        )));
    }
    words
}

fn sender_cure(device: &str) -> String {
    format!("ethtool -K {device} tso off gso off tx-udp-segmentation off")
}

/// What is said when a port's device has more or fewer queues than before.
pub fn queues_word(name: &str, kind: Kind, before: u32, now: u32, workers: usize) -> Word {
    match now > before {
        // drivers/net/veth.c, `veth_set_channels`: a queue that comes gets no program.
        true if kind == Kind::Veth => Word::Bad(format!(
            "port {name} has {now} queues now, {before} before: all are open, but veth gives what \
             comes by the new ones to the host, past lvx, until it was down: `ip link set {name} \
             down; ip link set {name} up`, then put back its routes and IPv6 addresses"
        )),
        true => Word::Good(format!(
            "port {name} has {now} queues now, {before} before: all are open, served by the \
             {workers} worker(s) there are; start lvx again for more workers"
        )),
        false => Word::Bad(format!("port {name} has {now} queues now, {before} before")),
    }
}

/// What is said when frames were lost for their length. `generic`: the ports that may be meant
/// first.
pub fn too_long_word(lost: u64, generic: &[&str], largest: u32) -> Word {
    let cure = match generic {
        [] => format!("a port's MTU is to be {largest} at most, its senders' too"),
        names => {
            let lines: Vec<String> = names
                .iter()
                .map(|name| format!("`ethtool -K {name} gro off lro off rx-gro-hw off`"))
                .collect();
            format!(
                "they were joined before lvx saw them, or never cut: {}, and on senders on this \
                 machine `{}`",
                lines.join(", "),
                sender_cure("DEV")
            )
        }
    };
    Word::Bad(format!(
        "{lost} frames were longer than lvx can take, and are lost (`frames_too_long`): {cure}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::neighbours::links::Master;

    #[test]
    fn each_change_is_said_once() {
        let well = PortFacts {
            is_up: true,
            has_carrier: true,
            mtu: 1500,
            ..PortFacts::default()
        };
        let down = PortFacts {
            is_up: false,
            has_carrier: false,
            ..well.clone()
        };
        let unplugged = PortFacts {
            has_carrier: false,
            ..well.clone()
        };
        let wide = |mtu| PortFacts {
            mtu,
            ..well.clone()
        };
        let member = PortFacts {
            master: Some(Master {
                kind: Kind::Bridge,
                name: "br0".into(),
            }),
            ..well.clone()
        };
        // One port's story: how it fares, and the words that must be in what is said.
        let story: [(&str, &PortFacts, &[&str]); 14] = [
            ("well from the start", &well, &[]),
            ("down", &down, &["is down", "ip link set p0 up"]),
            ("still down", &down, &[]),
            ("up without a link", &unplugged, &["no carrier"]),
            ("with one", &well, &["has a link again"]),
            ("wider, but not too wide", &wide(3000), &[]),
            (
                "too wide",
                &wide(9000),
                &["9000", "ip link set p0 mtu 3000"],
            ),
            ("still", &wide(9000), &[]),
            ("even wider", &wide(9500), &["9500"]),
            ("as before", &well, &["can take again"]),
            (
                "a member",
                &member,
                &["bridge br0", "--port br0", "nomaster"],
            ),
            ("still one", &member, &[]),
            ("free", &well, &["no other device's member"]),
            ("and down again", &down, &["is down"]),
        ];
        let mut health = Health::default();
        for (what, facts, words) in story {
            let said = health.change("p0", facts, 3000);
            assert_eq!(
                said.len(),
                usize::from(!words.is_empty()),
                "{what}: {said:?}"
            );
            let text = format!("{said:?}");
            for word in words {
                assert!(text.contains(word), "{what}: '{word}' is not in {text}");
            }
        }
        assert!(matches!(
            health.change("p0", &well, 3000)[..],
            [Word::Good(_)]
        ));
    }

    #[test]
    fn what_is_said_of_queues() {
        let rows = [
            ("more of a card", Kind::Plain, 1, 2, "Good", "all are open"),
            (
                "more of a veth",
                Kind::Veth,
                1,
                2,
                "Bad",
                "ip link set p0 down",
            ),
            ("fewer", Kind::Veth, 2, 1, "Bad", "1 queues now, 2 before"),
        ];
        for (what, kind, before, now, word, text) in rows {
            let said = format!("{:?}", queues_word("p0", kind, before, now, 1));
            assert!(
                said.starts_with(word) && said.contains(text),
                "{what}: {said}"
            );
        }
    }

    #[test]
    fn what_is_said_of_generic_ports_names_the_cure() {
        let rows = [
            (Kind::Plain, true, 1, "dmesg"),
            (Kind::Macvlan, true, 1, "device below"),
            (Kind::Bond, true, 1, "members"),
            (Kind::Bridge, false, 2, "ethtool -K DEV tso off gso off"),
        ];
        for (kind, takes_large, count, cure) in rows {
            let words = generic_words("p0", kind, "Operation not supported", takes_large);
            assert_eq!(words.len(), count, "{kind:?}");
            let text = format!("{words:?}");
            assert!(
                text.contains("Operation not supported") && text.contains(cure),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_said_of_long_frames_names_the_cure() {
        let rows: [(&[&str], &str); 2] = [(&[], "3000 at most"), (&["br0"], "-K br0 gro off")];
        for (generic, cure) in rows {
            let text = format!("{:?}", too_long_word(7, generic, 3000));
            assert!(text.contains("7 frames") && text.contains(cure), "{text}");
        }
    }
}
