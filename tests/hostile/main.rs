//! Everybody is against us: servers that lie, callers who play tricks, disks that fail, clocks that jump.
//!
//! Every row runs the real program on loopback, measures the memory that it took at the most,
//! and looks through all that it said and left behind. A row passes when the program ended by
//! itself with the status that the contract has for it, when nobody lost a letter, and when
//! no secret and no control character came out. `SENDMAIL_UNDER_TEST` names another build.
//!
//! The whole tables, with figures: `cargo test --release --test hostile -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod arguments;
mod attack;
mod clocks;
mod disks;
mod harm;
mod letters;
mod measure;
mod peers;
mod scram;
mod servers;
mod surroundings;
mod weak;
