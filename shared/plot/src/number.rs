//! Numbers as people read them.

/// Thousands separated, no fraction: `19,900`.
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value <= -0.5 {
        format!("-{grouped}")
    } else {
        grouped
    }
}

/// Three significant digits, thousands separated: `0.42`, `5.31`, `14.0`, `841`, `4,884`.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 9.995 => format!("{value:.2}"),
        medium if medium < 99.95 => format!("{value:.1}"),
        _ => thousands(value),
    }
}

/// As short as it can be: `0.5`, `20`.
pub fn plain(value: f64) -> String {
    // Without what binary fractions leave over: 0.3, not 0.30000000000000004.
    if value >= 1000.0 {
        thousands(value)
    } else {
        format!("{}", (value * 1e6).round() / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::{figure, thousands};

    #[test]
    fn thousands_are_separated() {
        assert_eq!(thousands(0.0), "0");
        assert_eq!(thousands(999.6), "1,000");
        assert_eq!(thousands(19_900.0), "19,900");
        assert_eq!(thousands(-1_234_567.0), "-1,234,567");
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(figure(0.4187), "0.42");
        assert_eq!(figure(5.3), "5.30");
        assert_eq!(figure(14.04), "14.0");
        assert_eq!(figure(4883.7), "4,884");
        assert_eq!(figure(9.999), "10.0");
    }
}
