//! The block of statistics against whole numbers.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::stats::{Counters, Reporter};

/// Numbers of all sizes, often near a power of ten, as far as a float is exact.
fn number() -> impl Strategy<Value = u64> {
    let power = (0..16_u32, -600..600_i64)
        .prop_map(|(power, off)| 10_u64.pow(power).saturating_add_signed(off));
    let size = (0..50_u32).prop_flat_map(|bits| 0..1_u64 << bits);
    // Just where a unit ends.
    let border = (1..4_u32, -2..3_i64).prop_map(|(power, off)| {
        (1000_u64.pow(power + 1) - 1000_u64.pow(power) / 2).saturating_add_signed(off)
    });
    prop_oneof![size, power, border]
}

/// `1234567` with a comma before every third digit from the right.
fn with_commas(number: u64) -> String {
    let mut rest = number;
    let mut groups = Vec::new();
    while rest >= 1000 {
        groups.push(format!("{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.push(rest.to_string());
    groups.reverse();
    groups.join(",")
}

/// Whether `shown` is this many bytes per second, in the smallest unit that gives less than 1,000, rounded.
fn is_rate(shown: &str, rate: u64) -> bool {
    const UNITS: [(&str, u64); 4] = [
        ("B/s", 1),
        ("kB/s", 1_000),
        ("MB/s", 1_000_000),
        ("GB/s", 1_000_000_000),
    ];
    let Some((value, unit)) = shown.split_once(' ') else {
        return false;
    };
    let Some(&(_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return false;
    };
    let Ok(number) = value.replace(',', "").parse::<u64>() else {
        return false;
    };
    let is_rounded = (number * size).abs_diff(rate) * 2 <= size;
    // In the unit before it would be 1,000 or more, rounded too.
    let is_smallest = size == 1 || rate * 2 >= 1999 * (size / 1000);
    is_rounded && is_smallest && (number < 1000 || unit == "GB/s") && value == with_commas(number)
}

proptest! {
    #![proptest_config(crate::config::config())]

    #[test]
    fn a_block_says_what_happened_in_its_time(
        connections in 0..usize::MAX,
        seconds in 1..1000_u64,
        before in [0..1_u64 << 40, 0..1_u64 << 40, 0..1_u64 << 40],
        rates in [number(), number(), number()],
    ) {
        let start = Instant::now();
        let mut reporter = Reporter::new(start);
        let counters = |[received, sent, events]: [u64; 3]| Counters { received, sent, events };
        let first = start + Duration::from_millis(1);
        reporter.report(0, &counters(before), first);
        let happened = [0, 1, 2].map(|at| before[at] + rates[at] * seconds);
        let second = first + Duration::from_secs(seconds);
        let block = reporter.report(connections, &counters(happened), second).to_string();
        let lines: Vec<&str> = block.lines().collect();
        let [clients, received, sent, events] = lines[..] else {
            return Err(TestCaseError::fail(block));
        };
        prop_assert_eq!(clients, format!("Connections: {} active", with_commas(connections as u64)));
        for (line, name, rate) in [(received, "Bytes in: ", rates[0]), (sent, "Bytes out: ", rates[1])] {
            let shown = line.strip_prefix(name).unwrap_or_default();
            prop_assert!(is_rate(shown, rate), "{line} is not {rate} bytes per second");
        }
        prop_assert_eq!(events, format!("Events/sec: {}", with_commas(rates[2])));
        prop_assert!(block.ends_with('\n'));
    }
}

#[test]
fn two_blocks_in_one_instant_divide_by_something() {
    let now = Instant::now();
    let mut reporter = Reporter::new(now);
    let block = reporter.report(1, &Counters::default(), now).to_string();
    assert_eq!(
        block,
        "Connections: 1 active\nBytes in: 0 B/s\nBytes out: 0 B/s\nEvents/sec: 0\n"
    );
}
