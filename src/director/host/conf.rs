//! What the tap device must and must not do (Documentation/networking/ip-sysctl.rst). As
//! much as can be is said over rtnetlink: a container's /proc/sys is read-only. The rest is
//! looked at first, and written only where it is wrong.

use std::io;
use std::path::PathBuf;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};

use crate::director::neighbours::Asker;

/// `IFLA_INET_CONF` of linux/if_link.h.
const INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_RP_FILTER` of linux/ip.h: sources are reached by the ports, not by this device.
const RP_FILTER: (u16, u32) = (8, 0);
/// `IPV4_DEVCONF_ARP_IGNORE` of linux/ip.h: nobody asks for addresses here.
const ARP_IGNORE: (u16, u32) = (19, 8);

/// Sets a new device up; what the operator should know comes back.
pub fn set_up(device: &str, index: u32) -> io::Result<Vec<String>> {
    let has_ipv6 = directory("ipv6").exists();
    Asker::new()?.change(request(index, has_ipv6), 0)?;
    let mut warnings = Vec::new();
    if setting("ipv4/conf/all/rp_filter") == Some(1) {
        warnings.push(
            "net.ipv4.conf.all.rp_filter=1 makes the host drop IPv4 packets that lvx leaves to \
             it: set it to 0 or 2 (`sysctl -w net.ipv4.conf.all.rp_filter=2`) and the ports' \
             own rp_filter as you need it"
                .into(),
        );
    }
    if has_ipv6 {
        for (name, is_wrong) in not_zero(device, setting) {
            match write(&format!("ipv6/conf/{device}/{name}"), "0") {
                Err(error) if is_wrong => warnings.push(cannot_be_set(device, name, &error)),
                _ => {}
            }
        }
    }
    Ok(warnings)
}

/// No filter of sources, no answers to ARP, and no IPv6 address of its own.
fn request(index: u32, has_ipv6: bool) -> RouteNetlinkMessage {
    let conf = DefaultNla::new(INET_CONF | NLA_F_NESTED, values(&[RP_FILTER, ARP_IGNORE]));
    let mut families = vec![AfSpecUnspec::Inet(vec![AfSpecInet::Other(conf)])];
    if has_ipv6 {
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        families.push(AfSpecUnspec::Inet6(vec![none]));
    }
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
        .attributes
        .push(LinkAttribute::AfSpecUnspec(families));
    RouteNetlinkMessage::SetLink(message)
}

/// Attributes of 4 bytes each.
fn values(values: &[(u16, u32)]) -> Vec<u8> {
    let each = |&(kind, value): &(u16, u32)| {
        let head = [8_u16.to_ne_bytes(), kind.to_ne_bytes()].concat();
        [head, value.to_ne_bytes().to_vec()].concat()
    };
    values.iter().flat_map(each).collect()
}

/// The device's IPv6 settings that would better be 0 and are not, and whether they do harm as
/// they are: IPv6 is received where the host has it, but no router is believed for what lvx
/// hands on.
fn not_zero(device: &str, setting: impl Fn(&str) -> Option<i64>) -> Vec<(&'static str, bool)> {
    let of = |name: &str| setting(&format!("ipv6/conf/{device}/{name}")).unwrap_or(0);
    let mut found = Vec::new();
    if of("accept_ra") != 0 {
        // For a device that forwards, 1 is off.
        found.push(("accept_ra", of("forwarding") == 0 || of("accept_ra") > 1));
    }
    let host_has_it = setting("ipv6/conf/all/disable_ipv6") != Some(1);
    if host_has_it && of("disable_ipv6") != 0 {
        found.push(("disable_ipv6", true));
    }
    found
}

fn cannot_be_set(device: &str, name: &str, error: &io::Error) -> String {
    let so_what = match name {
        "accept_ra" => "the host believes routers whose announcements lvx leaves to it",
        _ => "the host drops IPv6 packets that lvx leaves to it",
    };
    format!(
        "net.ipv6.conf.{device}.{name} is not 0 and cannot be set ({error}): {so_what}. Outside, \
         `nsenter --net=/proc/PID/ns/net sysctl -w net.ipv6.conf.{device}.{name}=0` with this \
         process's PID; for a container's next start, `--sysctl net.ipv6.conf.default.{name}=0`"
    )
}

/// The tree of the calling thread's network namespace.
fn directory(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}

fn setting(name: &str) -> Option<i64> {
    let text = std::fs::read_to_string(directory(name)).ok()?;
    text.trim().parse().ok()
}

fn write(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(directory(name), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_right_is_written() {
        // forwarding, accept_ra and disable_ipv6 of the device, disable_ipv6 of all.
        type Row = (&'static str, [i64; 4], &'static [(&'static str, bool)]);
        let rows: [Row; 8] = [
            ("all right", [0, 0, 0, 0], &[]),
            ("a host's default", [0, 1, 0, 0], &[("accept_ra", true)]),
            ("a router's default", [1, 1, 0, 0], &[("accept_ra", false)]),
            (
                "a router that listens",
                [1, 2, 0, 0],
                &[("accept_ra", true)],
            ),
            ("listens anyway", [0, 2, 0, 0], &[("accept_ra", true)]),
            (
                "off for new devices",
                [1, 0, 1, 0],
                &[("disable_ipv6", true)],
            ),
            ("off for all", [1, 0, 1, 1], &[]),
            (
                "both",
                [0, 1, 1, 0],
                &[("accept_ra", true), ("disable_ipv6", true)],
            ),
        ];
        for (what, [forwarding, accept_ra, disable_ipv6, all], expected) in rows {
            let setting = |name: &str| match name {
                "ipv6/conf/lvx0/forwarding" => Some(forwarding),
                "ipv6/conf/lvx0/accept_ra" => Some(accept_ra),
                "ipv6/conf/lvx0/disable_ipv6" => Some(disable_ipv6),
                "ipv6/conf/all/disable_ipv6" => Some(all),
                other => panic!("{other}"),
            };
            assert_eq!(not_zero("lvx0", setting), expected, "{what}");
        }
    }
}
