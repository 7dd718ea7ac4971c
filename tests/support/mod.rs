//! What the tests outside of the library share: a relay that plays a script, its certificates, and the real
//! `sendmail` run as callers run it. All traffic is on loopback, and every wait ends.
//!
//! A test is data: a [`Script`](relay::Script) for the relay, a configuration, words and standard input in; the
//! octets on the wire, status and standard error out. What a test does not mention must be as it is on a good
//! day: one connection, status 0, nothing said.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

pub mod authority;
pub mod case;
pub mod certificates;
pub mod desktop;
pub mod dovecot;
pub mod household;
pub mod letter;
pub mod machine;
pub mod names;
pub mod network;
pub mod opensmtpd;
pub mod peer;
pub mod postfix;
pub mod relay;
pub mod running;
pub mod screen;
pub mod sendmail;
pub mod server;
pub mod terminal;
pub mod tokens;
pub mod typist;
pub mod unpacked;
