//! The idle list against a queue that is searched from end to end.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use crate::idle::IdleList;

#[derive(Clone, Debug)]
enum Step {
    /// Bytes move on the connection in this slot, which may be new.
    Touch(u32),
    /// A connection comes, unless it is there already.
    Insert(u32),
    Remove(u32),
    /// Milliseconds pass.
    Pass(u64),
    /// All that are silent too long are taken out.
    Expire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..12_u32).prop_map(Step::Touch),
        2 => (0..12_u32).prop_map(Step::Insert),
        2 => (0..14_u32).prop_map(Step::Remove),
        2 => (0..60_u64).prop_map(Step::Pass),
        1 => Just(Step::Expire),
    ];
    prop::collection::vec(step, 0..200)
}

fn check(timeout: u64, capacity: usize, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut idle = IdleList::with_capacity(capacity, Duration::from_millis(timeout));
    // Slots and when they were last active, the one silent longest in front.
    let mut model = VecDeque::<(u32, u64)>::new();
    let mut now = 0;
    for step in steps {
        match step {
            Step::Touch(slot) => {
                idle.touch(slot, now);
                model.retain(|&(other, _)| other != slot);
                model.push_back((slot, now));
            }
            Step::Insert(slot) if model.iter().all(|&(other, _)| other != slot) => {
                idle.insert(slot, now);
                model.push_back((slot, now));
            }
            Step::Insert(_) => {}
            Step::Remove(slot) => {
                idle.remove(slot);
                model.retain(|&(other, _)| other != slot);
            }
            Step::Pass(milliseconds) => now += milliseconds,
            Step::Expire => {
                while let Some(slot) = idle.expired(now) {
                    prop_assert_eq!(Some(slot), model.pop_front().map(|(slot, _)| slot));
                    idle.remove(slot);
                }
            }
        }
        let oldest = model.front().copied();
        let left = oldest.map(|(_, at)| u128::from(at) + u128::from(timeout));
        let left = left.map(|deadline| deadline.saturating_sub(u128::from(now)) as u64);
        prop_assert_eq!(idle.until_next(now), left);
        let expired = oldest.filter(|_| left == Some(0)).map(|(slot, _)| slot);
        prop_assert_eq!(idle.expired(now), expired);
        for slot in 0..14 {
            let is_in_it = model.iter().any(|&(other, _)| other == slot);
            crate::check_contains(&idle, slot, is_in_it)?;
        }
    }
    // Whatever has happened, all are still in order.
    while let Some(slot) = idle.expired(u64::MAX) {
        prop_assert_eq!(Some(slot), model.pop_front().map(|(slot, _)| slot));
        idle.remove(slot);
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::config::config())]

    #[test]
    fn the_idle_list_is_a_queue(timeout in 0..300_u64, capacity in 0..20_usize, steps in steps()) {
        check(timeout, capacity, steps)?;
    }
}

#[test]
fn a_timeout_longer_than_time_never_ends() {
    let mut idle = IdleList::with_capacity(1, Duration::MAX);
    idle.insert(0, 1000);
    assert_eq!(idle.until_next(2000), Some(u64::MAX - 2000));
    assert_eq!(idle.expired(u64::MAX - 1), None);
}
