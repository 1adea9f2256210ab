//! What a soak has found, and how it is told.

use std::fmt::Write;

use plot::number::thousands;

use super::{Sample, Soak};

/// How much more memory, or how many more descriptors, the last third of a soak may need than the middle
/// one, by the median of each: so much of the middle third's, and so much besides. The first third is not
/// looked at: until it has been through its busiest moment, a server grows for good reasons.
const GROWTH: f64 = 0.05;
const BYTES_BESIDES: f64 = 256.0 * 1024.0;
const DESCRIPTORS_BESIDES: f64 = 16.0;

/// How much more memory a server without clients may have after the soak than in its busiest second.
const REST: f64 = 1.05;

/// What is wrong, if anything.
pub fn faults(soak: &Soak, load_errors: u64, first_errors: [Option<String>; 2]) -> Vec<String> {
    let mut faults = Vec::new();
    let [chaos_error, load_error] = first_errors;
    if soak.chaos.failures > 0 {
        faults.push(format!(
            "{} random clients did not get what they should have got; the first: {}",
            soak.chaos.failures,
            chaos_error.unwrap_or_default()
        ));
    }
    if soak.chaos.bytes_unaccounted > 0 {
        faults.push(format!(
            "{} bytes of the random clients are unaccounted for",
            soak.chaos.bytes_unaccounted
        ));
    }
    if load_errors > 0 {
        faults.push(format!(
            "{load_errors} errors of the load; the first: {}",
            load_error.unwrap_or_default()
        ));
    }
    if soak.after.descriptors != soak.before.descriptors {
        faults.push(format!(
            "with all clients gone it has {} descriptors; before they came it had {}",
            soak.after.descriptors, soak.before.descriptors
        ));
    }
    // Two ticks of the clock may belong to what went before.
    if soak.after.idle_cpu_ms > 20 {
        faults.push(format!(
            "with all clients gone it used {} ms of processor time in a second",
            soak.after.idle_cpu_ms
        ));
    }
    let anonymous = |sample: &Sample| sample.anonymous as f64;
    let most = soak.samples.iter().map(anonymous).fold(0.0, f64::max);
    if soak.after.anonymous as f64 > most * REST + BYTES_BESIDES {
        faults.push(format!(
            "with all clients gone it has {} bytes of memory, and never had more than {} with them",
            thousands(soak.after.anonymous as f64),
            thousands(most)
        ));
    }
    faults.extend(growth(
        &soak.samples,
        "bytes of memory",
        anonymous,
        BYTES_BESIDES,
    ));
    let descriptors = |sample: &Sample| sample.descriptors as f64;
    faults.extend(growth(
        &soak.samples,
        "descriptors",
        descriptors,
        DESCRIPTORS_BESIDES,
    ));
    faults
}

/// Whether the last third needs more than the middle one.
fn growth(
    samples: &[Sample],
    what: &str,
    value: impl Fn(&Sample) -> f64,
    besides: f64,
) -> Option<String> {
    let third = samples.len() / 3;
    let values: Vec<f64> = samples.iter().map(value).collect();
    let middle = median(&values[third..2 * third])?;
    let last = median(&values[2 * third..])?;
    (last > middle * (1.0 + GROWTH) + besides).then(|| {
        format!(
            "it grows: {} {what} in the middle third, {} in the last (medians)",
            thousands(middle),
            thousands(last)
        )
    })
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// One line about now.
pub fn show(sample: &Sample) {
    println!(
        "{:>5.0} s: {:>6.0} KB anonymous, {:>4} descriptors, {:>3.0} % CPU, {} clients, {} messages, {} errors",
        sample.at,
        sample.anonymous as f64 / 1e3,
        sample.descriptors,
        sample.cpu_percent,
        thousands(sample.clients as f64),
        thousands(sample.messages as f64),
        sample.errors
    );
}

/// The whole, in Markdown.
pub fn summary(soak: &Soak) -> String {
    let number = |n: u64| thousands(n as f64);
    let of = |value: fn(&Sample) -> f64| {
        let values: Vec<f64> = soak.samples.iter().map(value).collect();
        let median = median(&values).unwrap_or(0.0);
        (median, values.iter().copied().fold(0.0, f64::max))
    };
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "| {what} | {value} |");
    };
    line("server", soak.milestone.to_owned());
    line("---", "---".to_owned());
    line("seed", soak.seed.to_string());
    let early = if soak.interrupted {
        ", ended early"
    } else {
        ""
    };
    line("time", format!("{:.1} minutes{early}", soak.seconds / 60.0));
    line("random clients", number(soak.chaos.clients));
    line("their bytes sent", number(soak.chaos.bytes_sent));
    line("… back, and right", number(soak.chaos.bytes_verified));
    line(
        "… given up by those who left",
        number(soak.chaos.bytes_given_up),
    );
    line("… unaccounted for", number(soak.chaos.bytes_unaccounted));
    line("messages of the load beside", number(soak.messages));
    line(
        "errors",
        number(soak.samples.last().map_or(0, |sample| sample.errors)),
    );
    let (median, most) = of(|sample| sample.anonymous as f64 / 1024.0);
    line(
        "memory (Anonymous), median and most",
        format!("{} KiB, {} KiB", thousands(median), thousands(most)),
    );
    line(
        "… before the first client, after the last",
        format!(
            "{} KiB, {} KiB",
            number(soak.before.anonymous / 1024),
            number(soak.after.anonymous / 1024)
        ),
    );
    let (median, most) = of(|sample| sample.descriptors as f64);
    line(
        "descriptors, median and most",
        format!("{}, {}", thousands(median), thousands(most)),
    );
    line(
        "… before the first client, after the last",
        format!("{}, {}", soak.before.descriptors, soak.after.descriptors),
    );
    let (median, most) = of(|sample| sample.cpu_percent);
    line(
        "CPU of one core, median and most",
        format!("{median:.0} %, {most:.0} %"),
    );
    line(
        "… in a second without clients, after",
        format!("{} ms", soak.after.idle_cpu_ms),
    );
    let _ = writeln!(
        text,
        "\n{}, {}, {}; `{} --seed {}`.",
        soak.run.machine, soak.run.kernel, soak.run.date, soak.run.command, soak.seed
    );
    match &soak.faults[..] {
        [] => text.push_str("\nNo fault was found.\n"),
        faults => {
            text.push_str("\nFaults:\n\n");
            for fault in faults {
                let _ = writeln!(text, "- {fault}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(anonymous: impl Fn(u32) -> f64) -> Vec<Sample> {
        let sample = |second| Sample {
            at: f64::from(second),
            resident: 0,
            anonymous: anonymous(second) as u64,
            descriptors: 0,
            cpu_percent: 0.0,
            clients: 0,
            messages: 0,
            errors: 0,
        };
        (0..600).map(sample).collect()
    }

    fn grows(anonymous: impl Fn(u32) -> f64) -> bool {
        let value = |sample: &Sample| sample.anonymous as f64;
        growth(&samples(anonymous), "bytes", value, BYTES_BESIDES).is_some()
    }

    #[test]
    fn a_server_that_has_grown_and_stays_does_not_grow() {
        assert!(!grows(|second| 5e6 + f64::from(second.min(150)) * 1e5));
        // Now and then it needs more, at any time.
        assert!(!grows(|second| if second % 7 == 0 { 3e7 } else { 5e6 }));
    }

    #[test]
    fn a_few_kilobytes_a_second_are_growth() {
        assert!(grows(|second| 5e6 + f64::from(second) * 4e3));
    }

    #[test]
    fn too_few_samples_say_nothing() {
        assert!(growth(&[], "bytes", |_| 0.0, 0.0).is_none());
    }
}
