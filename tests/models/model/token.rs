//! Tokens against the pair that they are made of.

use proptest::prelude::*;

use crate::token::Token;

/// Any number, and often one at an end of the range.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0..4_u32, u32::MAX - 3..=u32::MAX]
}

proptest! {
    #![proptest_config(crate::config::config())]

    #[test]
    fn a_token_is_its_slot_and_its_generation(
        (slot, generation) in (number(), number()),
        other in (number(), number()),
    ) {
        let token = Token::new(slot, generation);
        let bits = u64::from(token);
        prop_assert_eq!(Token::from(bits), token);
        prop_assert_eq!((token.slot(), token.generation()), (slot, generation));
        prop_assert_eq!(bits, u64::from(generation) * (1 << 32) + u64::from(slot));
        prop_assert_eq!(Token::new(other.0, other.1) == token, other == (slot, generation));
    }
}
