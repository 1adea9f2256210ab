//! The connection table against a map from tokens to connections.

use std::collections::HashMap;

use proptest::{prelude::*, sample::Index};

use crate::token::Token;

/// What happens to a table. Tokens are taken from all that it ever gave, so most of them are stale.
#[derive(Clone, Debug)]
enum Step {
    Insert,
    Remove(Index),
    Get(Index),
    /// A token that the table did not give, unless by chance.
    GetForeign(u32, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Insert),
        2 => any::<Index>().prop_map(Step::Remove),
        2 => any::<Index>().prop_map(Step::Get),
        1 => (0..8_u32, 0..8_u32).prop_map(|(slot, generation)| Step::GetForeign(slot, generation)),
    ];
    prop::collection::vec(step, 0..200)
}

/// What a token is known by here.
fn key(token: Token) -> u64 {
    token.into()
}

fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut table = crate::empty_table();
    let mut model = HashMap::new();
    let mut given = Vec::new();
    let mut most = 0;
    for step in steps {
        match step {
            Step::Insert => {
                // Every connection is another, so a wrong one is recognised.
                let connection = given.len();
                let token = table.insert(connection);
                prop_assert!(!given.contains(&token), "{token:?} was given before");
                given.push(token);
                model.insert(key(token), connection);
                most = most.max(model.len());
                prop_assert!(
                    (token.slot() as usize) < most,
                    "{token:?} is in a new slot, and {most} were enough"
                );
            }
            Step::Remove(index) if !given.is_empty() => {
                let token = *index.get(&given);
                prop_assert_eq!(table.remove(token), model.remove(&key(token)));
            }
            Step::Get(index) if !given.is_empty() => {
                let token = *index.get(&given);
                prop_assert_eq!(table.get_mut(token), model.get_mut(&key(token)));
            }
            Step::GetForeign(slot, generation) => {
                let token = Token::new(slot, generation);
                prop_assert_eq!(table.get_mut(token), model.get_mut(&key(token)));
            }
            Step::Remove(_) | Step::Get(_) => {}
        }
        prop_assert_eq!(table.len(), model.len());
        let mut live: Vec<Token> = given.clone();
        live.retain(|&token| model.contains_key(&key(token)));
        live.sort_by_key(|token| token.slot());
        crate::check_tokens(&table, &live)?;
    }
    for token in given {
        prop_assert_eq!(table.get_mut(token), model.get_mut(&key(token)));
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::config::config())]

    #[test]
    fn the_table_is_a_map_from_tokens(steps in steps()) {
        check(steps)?;
    }
}
