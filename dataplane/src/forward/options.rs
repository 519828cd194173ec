//! IPv4's options on the way in (RFC 791), judged as Linux's `ip_options_compile` does.

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;
const ROUTER_ALERT: u8 = 148;

/// Whether the host refuses a packet with these options: malformed ones it answers with
/// "parameter problem", and source routes it drops unless told otherwise.
#[cold]
pub fn are_refused(options: &[u8]) -> bool {
    let mut rest = options;
    while let Some(&kind) = rest.first() {
        match kind {
            END => return false,
            NO_OPERATION => rest = &rest[1..],
            _ => {
                let length = rest.get(1).copied().map_or(0, usize::from);
                let Some(option) = rest.get(..length).filter(|_| length >= 2) else {
                    return true;
                };
                if is_refused(kind, option) {
                    return true;
                }
                rest = &rest[length..];
            }
        }
    }
    false
}

fn is_refused(kind: u8, option: &[u8]) -> bool {
    // The place of the next free byte, from 1; the option is full where it is behind it.
    let pointer = option.get(2).copied().map_or(0, usize::from);
    let has_room = pointer <= option.len();
    match kind {
        LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => true,
        RECORD_ROUTE => pointer < 4 || has_room && pointer + 3 > option.len(),
        TIMESTAMP => {
            // Time alone, or an address with each (flags 1 and 3); a count of 15 is full.
            let Some(&flags) = option.get(3) else {
                return true;
            };
            let entry = if flags & 0x0f == 0 { 3 } else { 7 };
            pointer < 5
                || has_room && pointer + entry > option.len()
                || !has_room && flags >> 4 == 15
        }
        ROUTER_ALERT => option.len() < 4,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    #[test]
    fn judges_as_the_host() {
        let rows = [
            ("router alert", "94040000", false),
            ("router alert, too short", "94030000", true),
            ("longer than the header", "94ff0000", true),
            ("too short for itself", "94010000", true),
            ("no length", "94", true),
            ("nothing in particular", "01010101", false),
            ("end, then anything", "00ff0000", false),
            ("unknown", "55040000", false),
            ("loose source route", "8307040102030400", true),
            ("strict source route", "8907040102030400", true),
            ("record route, full", "0707080000000000", false),
            ("record route, room", "0707040000000000", false),
            ("record route, half a place", "0707050000000000", true),
            ("record route, before its start", "0707030000000000", true),
            ("timestamp", "440c05000000000000000000", false),
            ("timestamp, full", "440c0d000000000000000000", false),
            ("timestamp, overflown", "440c0df00000000000000000", true),
            ("timestamp with address", "440c05010000000000000000", false),
            (
                "timestamp, no room for its address",
                "440c09010000000000000000",
                true,
            ),
        ];
        for (what, text, refused) in rows {
            assert_eq!(are_refused(&hex(text)), refused, "{what}");
        }
    }
}
