//! Pillarbox: a sendmail-compatible relay MTA. This page is its architecture.
//!
//! A letter's journey, left to right; from the bar on it is ours:
//! ```text
//! argv, stdin → options → Message → Envelope → Account │ attempt → Outcome each → settle → exit, sentence, log
//! ```
//! The modules are floors. A floor knows the ones beneath it and nothing above.
//! ```text
//! roof   cli                                           words, numbers, clock, environment
//! 4 work submit  settle  deliver  runner  dsn          one submission, one end, one attempt, one run, one bounce,
//!        sandbox  serve  compose                       one trial relay, one service, one letter from a text and files
//! 3 wire smtp  relay  http                             the only place that speaks SMTP; one form for a token
//! 2 disk queue                                         what survives a power cut
//! 1 told config  aliases  secret                       what the user told us; what nobody must see printed
//! 0 words envelope  message  outcome                   pure: bytes in, values out
//! ```
//! The walls between them are sentences that `tests/floors.rs` checks.

pub mod aliases;
pub mod cli;
pub mod compose;
pub mod config;
pub mod deliver;
pub mod dsn;
pub mod envelope;
pub mod http;
pub mod message;
pub mod outcome;
pub mod queue;
pub mod relay;
pub mod runner;
pub mod sandbox;
pub mod secret;
pub mod serve;
pub mod settle;
pub mod smtp;
pub mod submit;
