//! Faults, as they happen: calls that fail, processes that die, disks that fill up, power that goes, files that are
//! not what they seem.
//!
//! Everything here runs the real program against a relay that counts, on loopback. What a machine cannot do (no
//! strace, no right to mount) is skipped with a word; under `CI=true` a missing tool is a failure.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crowd;
mod disk_full;
mod house;
mod letter;
mod mount;
mod power;
mod reports;
mod service;
mod signals;
mod sink;
mod strace;
mod strangers;
mod sweep;
mod ten_thousand;
