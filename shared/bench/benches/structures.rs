//! m6's own structures at 1,000, 100,000 and 1,000,000 entries: `cargo bench -p bench --bench structures`.
//!
//! `active` visits 100 entries that are spread over all of them, as a server with many idle connections does: what one
//! operation costs must not depend on how many there are. `all` visits every entry, in a random order: those that do not
//! fit in the processor's caches are waited for, whoever keeps them.

use divan::Bencher;
use divan::counter::ItemsCount;

const ENTRIES: [u32; 3] = [1_000, 100_000, 1_000_000];
const ACTIVE: usize = 100;

fn main() {
    divan::main();
}

/// Runs `operation` for each slot in `order`; divan shows the time of the whole and operations per second.
fn each(bencher: Bencher<'_, '_>, order: &[u32], mut operation: impl FnMut(u32)) {
    bencher
        .counter(ItemsCount::new(order.len()))
        .bench_local(|| order.iter().for_each(|&slot| operation(slot)));
}

macro_rules! structures {
    ($($operation:ident)*) => {$(
        mod $operation {
            use super::*;

            #[divan::bench(args = ENTRIES)]
            fn active(bencher: Bencher<'_, '_>, entries: u32) {
                each(bencher, &m6_structures::shuffled(entries)[..ACTIVE], m6_structures::$operation(entries));
            }

            #[divan::bench(args = ENTRIES)]
            fn all(bencher: Bencher<'_, '_>, entries: u32) {
                each(bencher, &m6_structures::shuffled(entries), m6_structures::$operation(entries));
            }
        }
    )*};
}

structures! { look_up replace touch take_turn look_into_outbox }
