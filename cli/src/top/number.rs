//! Numbers in few columns.

/// At most five columns: `0.4`, `9999`, `12.3k`, `1.23M`.
pub fn short(value: f64) -> String {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if value < 0.05 {
        return "0".to_owned();
    }
    if value < 9.95 && (value - value.round()).abs() >= 0.05 {
        return format!("{value:.1}");
    }
    if value < 9999.5 {
        return format!("{value:.0}");
    }
    let mut scaled = value;
    let mut unit = "";
    for next in UNITS {
        if scaled < 999.5 {
            break;
        }
        scaled /= 1000.0;
        unit = next;
    }
    let decimals = match scaled {
        s if s < 9.995 => 2,
        s if s < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$}{unit}")
}

/// A count: exact in six columns, then as [`short`].
pub fn count(value: u64) -> String {
    match value {
        0..=999_999 => value.to_string(),
        _ => short(value as f64),
    }
}

/// `42s`, `3m07s`, `5h02m`, `12d03h`.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A history, the newest at the right, as high as `most`; as wide as it is asked to be.
pub fn sparkline(history: &[f32], most: f32, width: usize) -> String {
    const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &history[history.len().saturating_sub(width)..];
    let mut line = " ".repeat(width - shown.len());
    line.extend(shown.iter().map(|&value| {
        let part = if most > 0.0 { value / most } else { 0.0 };
        // What is not nothing is seen.
        let height = (part * 8.0).round().clamp(0.0, 8.0) as usize;
        HEIGHTS[if value > 0.0 { height.max(1) } else { 0 }]
    }));
    line
}

/// A bar for a share of 0 to 1.
pub fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let text = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
    format!("{text:·<width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_columns() {
        let rows = [
            (0.0, "0"),
            (0.04, "0"),
            (0.4, "0.4"),
            (1.0, "1"),
            (9.94, "9.9"),
            (9.96, "10"),
            (12.6, "13"),
            (9999.4, "9999"),
            (9999.6, "10.0k"),
            (12_345.0, "12.3k"),
            (99_949.0, "99.9k"),
            (99_960.0, "100k"),
            (999_600.0, "1.00M"),
            (1_234_567.0, "1.23M"),
            (123_456_789.0, "123M"),
            (1e12, "1.00T"),
            (1.8e19, "18.0E"),
        ];
        for (value, expected) in rows {
            assert_eq!(short(value), expected);
            assert!(short(value).len() <= 5);
        }
        assert_eq!(
            [999_999, 1_000_000].map(count),
            ["999999".to_owned(), "1.00M".to_owned()]
        );
    }

    #[test]
    fn durations() {
        let rows = [
            (0, "0s"),
            (59, "59s"),
            (187, "3m07s"),
            (18_120, "5h02m"),
            (1_050_000, "12d03h"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn histories_and_bars() {
        assert_eq!(sparkline(&[0.0, 0.1, 4.0, 8.0], 8.0, 6), "   ▁▄█");
        assert_eq!(sparkline(&[1.0, 2.0, 4.0], 4.0, 2), "▄█", "the newest");
        assert_eq!(sparkline(&[0.0], 0.0, 1), " ");
        assert_eq!(
            [0.0, 0.5, 1.0, 7.0].map(|share| bar(share, 5)),
            ["·····", "██▌··", "█████", "█████"]
        );
    }
}
