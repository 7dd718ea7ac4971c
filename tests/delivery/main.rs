//! Letters on their way to a relay: what arrives there, and what the caller is told.
//!
//! Everything runs as it will: the real `sendmail`, a configuration file, a relay on loopback behind verified
//! STARTTLS with AUTH. The relay plays the part that each case gives it.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod callers;
mod content;
mod envelope;
mod session;
mod surroundings;
mod trust;
