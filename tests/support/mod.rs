//! What the tests against other people's programs share: a household that sends, relays that receive, letters.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // every test file uses its own part of this

pub mod certificates;
pub mod household;
pub mod letter;
pub mod peer;
pub mod postfix;
