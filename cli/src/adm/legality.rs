//! Which options a command needs, allows and forbids, and which of them exclude each
//! other. Taken from ipvsadm 1.31 by trying every command with every option.

use super::failure::Failure;
use super::slot::{Slot, Slots};
use super::words::Verb;

/// What may stand on one line together.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Must be there.
    pub required: Slots,
    /// May be there.
    pub allowed: Slots,
    /// At most one of these may be there.
    pub exclusive: Slots,
}

const fn rules(required: &[Slot], allowed: &[Slot], exclusive: &[Slot]) -> Rules {
    Rules {
        required: Slots::of(required),
        allowed: Slots::of(allowed),
        exclusive: Slots::of(exclusive),
    }
}

const NOTHING: Rules = rules(&[], &[], &[]);

const SERVICE: Rules = rules(
    &[Slot::Service],
    &[
        Slot::Scheduler,
        Slot::Persistent,
        Slot::Netmask,
        Slot::OnePacket,
        Slot::Engine,
        Slot::SchedulerFlags,
    ],
    &[],
);

const SERVER: Rules = rules(
    &[Slot::Service, Slot::Server],
    &[
        Slot::Forwarding,
        Slot::Weight,
        Slot::UpperThreshold,
        Slot::LowerThreshold,
        Slot::TunnelType,
        Slot::TunnelPort,
        Slot::TunnelNoChecksum,
        Slot::TunnelChecksum,
        Slot::TunnelRemoteChecksum,
    ],
    &[],
);

const LIST: Rules = rules(
    &[],
    &[
        Slot::Numeric,
        Slot::Stats,
        Slot::Rate,
        Slot::Thresholds,
        Slot::PersistentConn,
        Slot::NoSort,
        Slot::SyncId,
        Slot::Exact,
        Slot::TunnelInfo,
    ],
    &[Slot::Connection, Slot::Service, Slot::Timeout, Slot::Daemon],
);

const START_DAEMON: Rules = rules(
    &[],
    &[
        Slot::McastInterface,
        Slot::SyncId,
        Slot::McastGroup,
        Slot::McastPort,
        Slot::McastTtl,
        Slot::SyncMaxLength,
    ],
    &[],
);

impl Rules {
    /// What may stand beside `verb`.
    pub const fn of(verb: Verb) -> Self {
        match verb {
            Verb::AddService | Verb::EditService => SERVICE,
            Verb::DeleteService => rules(&[Slot::Service], &[], &[]),
            Verb::AddServer | Verb::EditServer => SERVER,
            Verb::DeleteServer => rules(&[Slot::Service, Slot::Server], &[], &[]),
            Verb::List => LIST,
            Verb::Save => rules(&[], &[Slot::Numeric], &[]),
            Verb::Zero => rules(&[], &[Slot::Service], &[]),
            Verb::StartDaemon => START_DAEMON,
            Verb::StopDaemon => rules(&[], &[Slot::SyncId], &[]),
            Verb::Flush | Verb::SetTimeouts | Verb::Restore | Verb::Help | Verb::Version => NOTHING,
        }
    }
}

/// Refuses `filled` where `verb` lacks, forbids or cannot combine an option; the first slot
/// in order decides.
pub fn check_command(verb: Verb, filled: Slots) -> Result<(), Failure> {
    let place = format!("'{}' command", verb.name());
    check(Slot::ALL.into_iter(), Rules::of(verb), filled, &place)
}

/// The same for the options of a tunnel's type.
pub fn check_tunnel(kind: TunnelKind, filled: Slots) -> Result<(), Failure> {
    let slots = Slot::ALL.into_iter().filter(|&s| s >= Slot::TunnelPort);
    check(
        slots,
        kind.rules(),
        filled,
        &format!("'{}' tunnel type", kind.name()),
    )
}

fn check(
    slots: impl Iterator<Item = Slot>,
    rules: Rules,
    filled: Slots,
    place: &str,
) -> Result<(), Failure> {
    let mut chosen: Option<Slot> = None;
    for slot in slots {
        let name = slot.name();
        if !filled.has(slot) {
            if rules.required.has(slot) {
                return Err(Failure::usage(format!(
                    "You need to supply the '{name}' option for the {place}"
                )));
            }
        } else if rules.exclusive.has(slot) {
            if let Some(earlier) = chosen.replace(slot) {
                return Err(Failure::usage(format!(
                    "The option '{name}' conflicts with the '{}' option in the {place}",
                    earlier.name()
                )));
            }
        } else if !rules.allowed.has(slot) && !rules.required.has(slot) {
            return Err(Failure::usage(format!(
                "Illegal '{name}' option with the {place}"
            )));
        }
    }
    Ok(())
}

/// A tunnel's type, as `--tun-type` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelKind {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// GRE.
    Gre,
}

impl TunnelKind {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::Ipip, Self::Gue, Self::Gre];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gre => "gre",
        }
    }

    const fn rules(self) -> Rules {
        const CHECKSUMS: [Slot; 3] = [
            Slot::TunnelNoChecksum,
            Slot::TunnelChecksum,
            Slot::TunnelRemoteChecksum,
        ];
        match self {
            Self::Ipip => NOTHING,
            Self::Gue => rules(&[Slot::TunnelPort], &[], &CHECKSUMS),
            Self::Gre => rules(&[], &[], &[Slot::TunnelNoChecksum, Slot::TunnelChecksum]),
        }
    }
}
