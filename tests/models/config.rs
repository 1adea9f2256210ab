//! How the models are run.

use proptest::test_runner::{Config, RngSeed};

/// The same cases on every run, so that a test that passes today does not fail tomorrow by chance. `PROPTEST_CASES` asks for
/// more of them, and `PROPTEST_RNG_SEED` for others.
pub fn config() -> Config {
    let asked = Config::default();
    Config {
        cases: std::env::var("PROPTEST_CASES").map_or(64, |_| asked.cases),
        rng_seed: match asked.rng_seed {
            RngSeed::Random => RngSeed::Fixed(9000),
            fixed => fixed,
        },
        // A case that failed becomes a test with a name.
        failure_persistence: None,
        ..asked
    }
}
