//! What the clients send: bytes that name their own place.
//!
//! An echo server that loses, repeats, changes or swaps bytes, or mixes up two connections, must be
//! caught at the very byte, and comparing must cost next to nothing. So every connection sends the
//! same endless sequence, each from a start of its own, and what comes back is compared, slice by
//! slice, with the table that it was sent from.
//!
//! The sequence walks through the remainders modulo the prime 251 with step 1, then with step 2, up
//! to step 250: `0 1 2 … 250`, `0 2 4 … 250 1 3 …`, and so on. Two neighbours are `x` and
//! `x + step`, so no two walks share a pair, and **any two successive bytes occur in one place
//! only**. Neighbours always differ. A byte lost or repeated is therefore seen where it happens, and
//! two bytes are enough to say from where they really are.
//!
//! Three bytes that occur nowhere else make the period prime: two messages of one size, and that is
//! not a multiple of the period, are alike only when they are 62,753 messages apart.

use std::sync::LazyLock;

/// Bytes after which the sequence repeats; a prime.
pub const PERIOD: usize = MODULUS * (MODULUS - 1) + 3;

/// The most bytes that [`slice()`] can give at once.
pub const WINDOW: usize = 64 * 1024;

const MODULUS: usize = 251;

/// How far apart two neighbouring connections start: about the golden ratio of the period, so that
/// the first thousands of starts are spread evenly. Any number would keep 62,753 connections apart.
const STRIDE: usize = 38_783;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| (0..PERIOD + WINDOW).map(byte).collect());

/// The byte at `place` of the endless sequence.
fn byte(place: usize) -> u8 {
    let place = place % PERIOD;
    let (step, at) = (place / MODULUS + 1, place % MODULUS);
    let value = if step < MODULUS {
        step * at % MODULUS
    } else {
        MODULUS + at
    };
    value as u8
}

/// The place where connection number `connection` starts.
pub fn start(connection: usize) -> usize {
    connection % PERIOD * STRIDE % PERIOD
}

/// The `len` bytes that a connection which started at `start` sends from its byte number `offset` on.
///
/// # Panics
///
/// When `len` is more than [`WINDOW`].
pub fn slice(start: usize, offset: u64, len: usize) -> &'static [u8] {
    assert!(
        len <= WINDOW,
        "a slice of the pattern has at most {WINDOW} bytes"
    );
    let place = place(start, offset);
    &TABLE[place..place + len]
}

/// Where in the period byte number `offset` of a connection that started at `start` lies.
fn place(start: usize, offset: u64) -> usize {
    ((start as u64 + offset) % PERIOD as u64) as usize
}

/// What the first wrong bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// This many bytes are wrong, and what follows them is right again.
    Changed(usize),
    /// These many bytes are the right ones in a wrong order.
    Swapped(usize),
    /// What came belongs this many bytes further on: those between are missing, or late.
    Missing(u64),
    /// What came belongs this many bytes further back: it came once before.
    Repeated(u64),
    /// Bytes of another connection, or bytes that nobody sent.
    Foreign,
    /// Too few bytes to tell.
    Unclear,
}

/// Explains the bytes `got` that came where byte number `offset` was expected, `sent` bytes having
/// been sent so far.
pub(crate) fn explain(start: usize, offset: u64, sent: u64, got: &[u8]) -> Meaning {
    /// Two bytes name a place; some more guard against a chance hit.
    const SURE: usize = 8;
    /// Most bytes that still count as a local accident.
    const FEW: usize = 16;
    /// Furthest back that a repetition is looked for. Bytes of another connection lie somewhere in
    /// the period too, so far-off places prove nothing.
    const BACK: u64 = 8 * 1024;

    let [first, second, ..] = *got else {
        return Meaning::Unclear;
    };
    let belongs_at = |offset: u64, bytes: &[u8]| {
        let len = bytes.len().min(SURE);
        len >= 2 && slice(start, offset, len) == &bytes[..len]
    };

    let in_another_order = |few: usize| {
        let (mut got, mut expected) = (got[..few].to_vec(), slice(start, offset, few).to_vec());
        got.sort_unstable();
        expected.sort_unstable();
        few > 1 && got == expected
    };

    if let Some(few) =
        (1..=FEW.min(got.len())).find(|&few| belongs_at(offset + few as u64, &got[few..]))
    {
        return if in_another_order(few) {
            Meaning::Swapped(few)
        } else {
            Meaning::Changed(few)
        };
    }
    // The last bytes of all have none behind them that could be right again.
    if got.len() <= FEW && in_another_order(got.len()) {
        return Meaning::Swapped(got.len());
    }
    let Some(found) = (0..PERIOD).find(|&at| TABLE[at] == first && TABLE[at + 1] == second) else {
        return Meaning::Foreign;
    };
    let ahead = ((found + PERIOD - place(start, offset)) % PERIOD) as u64;
    let back = PERIOD as u64 - ahead;
    if ahead > 0 && offset + ahead < sent && belongs_at(offset + ahead, got) {
        Meaning::Missing(ahead)
    } else if back <= offset.min(BACK) && belongs_at(offset - back, got) {
        Meaning::Repeated(back)
    } else {
        Meaning::Foreign
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Bytes `from..to` of connection 5.
    fn bytes(from: u64, to: u64) -> Vec<u8> {
        (from..to).map(|at| slice(start(5), at, 1)[0]).collect()
    }

    #[test]
    fn two_successive_bytes_occur_in_one_place_of_the_period() {
        let mut pairs = HashSet::new();
        for pair in TABLE[..PERIOD + 1].windows(2) {
            assert_ne!(pair[0], pair[1]);
            assert!(pairs.insert((pair[0], pair[1])), "{pair:?} occurs twice");
        }
        assert_eq!(pairs.len(), PERIOD);
    }

    #[test]
    fn the_period_is_prime() {
        assert!(
            (2..)
                .take_while(|n| n * n <= PERIOD)
                .all(|n| !PERIOD.is_multiple_of(n))
        );
    }

    #[test]
    fn a_window_runs_on_over_the_end_of_the_period() {
        let across = slice(start(0), PERIOD as u64 - 3, WINDOW);
        assert_eq!(across[..5], [251, 252, 253, 0, 1]);
        assert_eq!(across[3..], slice(start(0), 0, WINDOW)[..WINDOW - 3]);
    }

    #[test]
    fn no_two_of_62_753_connections_start_alike() {
        let starts: HashSet<_> = (0..PERIOD).map(start).collect();
        assert_eq!(starts.len(), PERIOD);
    }

    #[test]
    fn names_a_changed_byte() {
        let mut got = bytes(100, 164);
        got[0] ^= 1;
        assert_eq!(explain(start(5), 100, 200, &got), Meaning::Changed(1));
    }

    #[test]
    fn names_two_swapped_bytes() {
        for offset in [100, 1_000_000] {
            let mut got = bytes(offset, offset + 64);
            got.swap(0, 1);
            assert_eq!(
                explain(start(5), offset, offset + 64, &got),
                Meaning::Swapped(2)
            );
            assert_eq!(
                explain(start(5), offset, offset + 2, &got[..2]),
                Meaning::Swapped(2)
            );
        }
    }

    #[test]
    fn names_missing_bytes() {
        for lost in [1, 2, 64, 4096] {
            let got = bytes(100 + lost, 9000);
            assert_eq!(explain(start(5), 100, 9000, &got), Meaning::Missing(lost));
        }
    }

    #[test]
    fn names_repeated_bytes() {
        for again in [1, 2, 64, 4096] {
            let got = bytes(5000 - again, 9000);
            assert_eq!(
                explain(start(5), 5000, 9000, &got),
                Meaning::Repeated(again)
            );
        }
    }

    #[test]
    fn names_bytes_of_another_connection() {
        let got = slice(start(6), 100, 64);
        assert_eq!(explain(start(5), 100, 200, got), Meaning::Foreign);
        assert_eq!(explain(start(5), 100, 200, &[0xFF; 64]), Meaning::Foreign);
    }

    #[test]
    fn does_not_guess_from_a_single_byte() {
        assert_eq!(explain(start(5), 100, 200, &[0xFF]), Meaning::Unclear);
    }
}
