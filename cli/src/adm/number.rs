//! Numbers and IPv4 addresses as the C library reads them, since scripts rely on its
//! liberties: leading blanks, a sign, `10.1` for 10.0.0.1, octal and hexadecimal parts.

use std::net::Ipv4Addr;

/// A decimal number, as `strtol` with base 10 reads it, all of `text` taken.
pub fn decimal(text: &str) -> Option<i64> {
    let text = text.trim_start_matches(is_space);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The decimal number at the start of `text`, 0 where there is none, as `atoi` reads it.
pub fn leading_decimal(text: &str) -> i64 {
    let text = text.trim_start_matches(is_space);
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    text[..sign + digits].parse().unwrap_or(0)
}

/// An IPv4 address as `inet_aton` reads it: one to four parts, each decimal, octal or
/// hexadecimal, the last filling what is left; text after a blank is ignored.
pub fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let text = text.split(is_space).next().unwrap_or_default();
    let parts = text.split('.').map(c_number).collect::<Option<Vec<_>>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|&part| part > 0xff) {
        return None;
    }
    let room_bits = 32 - 8 * leading.len() as u32;
    if u64::from(*last) >= 1 << room_bits {
        return None;
    }
    let high = leading.iter().fold(0, |bits, part| bits << 8 | part);
    let high = high.checked_shl(room_bits).unwrap_or(0);
    Some(Ipv4Addr::from_bits(high | last))
}

fn c_number(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (lower.as_str(), 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// C's `isspace` in the C locale.
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_rows() {
        let rows = [
            ("four parts", "10.1.0.1", Some([10, 1, 0, 1])),
            ("two parts", "10.1", Some([10, 0, 0, 1])),
            ("three parts", "10.1.513", Some([10, 1, 2, 1])),
            ("one part", "1", Some([0, 0, 0, 1])),
            ("all bits", "4294967295", Some([255; 4])),
            ("too big", "4294967296", None),
            ("hexadecimal", "0x0a.1.2.3", Some([10, 1, 2, 3])),
            ("octal", "010.1.1.1", Some([8, 1, 1, 1])),
            ("zero", "0.0.0.0", Some([0; 4])),
            ("no octal digit", "08.1.1.1", None),
            ("a part too big", "10.1.0.999", None),
            ("an inner part too big", "10.999.0.1", None),
            ("five parts", "1.2.3.4.5", None),
            ("an empty part", "1..2", None),
            ("ends with a dot", "1.2.3.", None),
            ("nothing", "", None),
            ("text after a blank", "1.2.3.4 x", Some([1, 2, 3, 4])),
            ("a name", "abc", None),
            ("a sign", "+1.2.3.4", None),
        ];
        for (what, text, expected) in rows {
            assert_eq!(ipv4(text), expected.map(Ipv4Addr::from), "{what}: {text:?}");
        }
    }

    #[test]
    fn decimal_rows() {
        let rows = [
            ("12", Some(12)),
            ("010", Some(10)),
            ("+5", Some(5)),
            ("-5", Some(-5)),
            (" 7", Some(7)),
            ("7 ", None),
            ("0x10", None),
            ("", None),
            ("+", None),
            ("1.5", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in rows {
            assert_eq!(decimal(text), expected, "{text:?}");
        }
        assert_eq!(leading_decimal("64x"), 64);
        assert_eq!(leading_decimal("x"), 0);
        assert_eq!(leading_decimal("-3"), -3);
    }
}
