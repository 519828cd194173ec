//! Counters and rates in nine columns.

/// A number in nine columns: from 100 million on in thousands (K), millions (M), billions
/// (G) or trillions (T), truncated; `exact` gives it in full, at least a blank before it.
pub fn large(number: u64, exact: bool) -> String {
    if exact {
        let digits = number.to_string();
        let width = match digits.len() {
            0..=8 => 9,
            more => more + 1,
        };
        return format!("{digits:>width$}");
    }
    match number {
        0..100_000_000 => format!("{number:9}"),
        100_000_000..1_000_000_000 => format!("{:8}K", number / 1000),
        1_000_000_000..100_000_000_000 => format!("{:8}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:8}G", number / 1_000_000_000),
        _ => format!("{:8}T", number / 1_000_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let rows = [
            (0, "        0", "        0"),
            (99_999_999, " 99999999", " 99999999"),
            (100_000_000, "  100000K", " 100000000"),
            (999_999_999, "  999999K", " 999999999"),
            (1_000_000_000, "    1000M", " 1000000000"),
            (99_999_999_999, "   99999M", " 99999999999"),
            (100_000_000_000, "     100G", " 100000000000"),
            (99_999_999_999_999, "   99999G", " 99999999999999"),
            (100_000_000_000_000, "     100T", " 100000000000000"),
            (u64::MAX, "18446744T", " 18446744073709551615"),
        ];
        for (number, short, exact) in rows {
            assert_eq!(large(number, false), short);
            assert_eq!(large(number, true), exact);
        }
    }
}
