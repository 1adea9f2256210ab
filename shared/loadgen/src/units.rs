//! Numbers as wrk prints them, and as its command line takes them.

use std::time::Duration;

/// A time in microseconds: `853.00us`, `8.98ms`, `1.20s`, `2.50m`.
pub fn time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.2}us"),
        us if us < 1e6 => format!("{:.2}ms", us / 1e3),
        us if us < 60e6 => format!("{:.2}s", us / 1e6),
        us => format!("{:.2}m", us / 60e6),
    }
}

/// A count or a rate: `853.00`, `27.94k`, `1.20M`.
pub fn metric(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T"])
}

/// Bytes: `853.00B`, `71.19MB`. As in wrk a kilobyte has 1,024 bytes here.
pub fn bytes(number: f64) -> String {
    scaled(number, 1024.0, &["B", "KB", "MB", "GB", "TB", "PB"])
}

/// A duration as it was asked for: `10s`, `1h`, `2m`, `1.5s`, `250ms`.
pub fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => format!("{}us", duration.as_micros()),
        ms if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        ms if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        ms if ms < 1_000 => format!("{ms}ms"),
        _ => format!("{}s", duration.as_secs_f64()),
    }
}

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let mut value = number;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        // What would print as 1000.00 belongs to the next unit.
        if value < step - 0.005 {
            break;
        }
        value /= step;
        unit = larger;
    }
    format!("{value:.2}{unit}")
}

/// Reads `10s`, `500ms`, `2m`, `1h`, or a number of seconds.
///
/// # Errors
///
/// A sentence for the user.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds_per_unit = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => {
            return Err(format!(
                "no unit of time is called `{unit}`: us, ms, s, m or h"
            ));
        }
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| "a time is a number and a unit, such as 10s".to_string())?;
    let seconds = number * seconds_per_unit;
    // A year, and nothing that is not a number.
    if !(0.0..=31_536_000.0).contains(&seconds) {
        return Err("a time is not negative and at most a year".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Reads a count: `1000`, `10k`, `1M`.
///
/// # Errors
///
/// A sentence for the user.
pub fn parse_count(text: &str) -> Result<u64, String> {
    parse_multiple(text, 1000)
}

/// Reads a number of bytes: `64`, `4k`, `1M`, in steps of 1,024.
///
/// # Errors
///
/// A sentence for the user.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    parse_multiple(text, 1024)
}

fn parse_multiple(text: &str, step: u64) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => step,
        "m" | "M" => step * step,
        "g" | "G" => step * step * step,
        unit => return Err(format!("no such unit: `{unit}`; k, M or G")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a whole number is wanted, such as 1000 or 10k".to_string())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "the number is too large".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_change_their_unit() {
        let shown = [0.0, 853.0, 8_984.0, 1_204_000.0, 150e6].map(time);
        assert_eq!(shown, ["0.00us", "853.00us", "8.98ms", "1.20s", "2.50m"]);
    }

    #[test]
    fn counts_and_bytes_change_their_unit() {
        assert_eq!(
            [999.99, 999.999, 27_940.0, 1.2e6].map(metric),
            ["999.99", "1.00k", "27.94k", "1.20M"]
        );
        assert_eq!(
            [0.0, 1023.0, 1024.0, 74_646_030.0].map(bytes),
            ["0.00B", "1023.00B", "1.00KB", "71.19MB"]
        );
    }

    #[test]
    fn durations_read_as_they_print() {
        for text in ["10s", "2m", "1h", "90m", "500ms", "1.5s", "7us"] {
            assert_eq!(duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(parse_duration("10").unwrap(), Duration::from_secs(10));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "", "s", "ten", "-1s", "10 s", "10d", "1e300", "inf", "nan", "é",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_take_units() {
        assert_eq!(parse_count("10k"), Ok(10_000));
        assert_eq!(parse_bytes("4k"), Ok(4_096));
        assert_eq!(parse_bytes("1M"), Ok(1 << 20));
        for text in ["", "k", "1.5k", "-1", "10q", "99999999999G", "é"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }
}
