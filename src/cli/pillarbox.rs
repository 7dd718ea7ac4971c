//! `pillarbox` from its words to its exit status: one subcommand, one file.
//!
//! The words are clap's to read; that it finds fault with them is 64 here, as everywhere, and not its own 2.

use super::exit::sysexits;
use super::sandbox;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;

/// The administrator's and user's tool of Pillarbox, a mail relay for machines that only send
#[derive(Debug, Parser)]
#[command(name = "pillarbox", version, disable_help_subcommand = true)]
pub struct Words {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try things out: an embedded relay that shows every letter and sends none
    Sandbox(sandbox::Words),
}

/// Runs a subcommand; the first word is the program's name. Returns the exit status.
pub fn main(words: impl IntoIterator<Item = OsString>) -> u8 {
    match Words::try_parse_from(words) {
        Ok(Words { command: Command::Sandbox(words) }) => sandbox::main(&words),
        Err(usage) if usage.use_stderr() => {
            let _ = write!(std::io::stderr(), "{usage}");
            sysexits::USAGE
        }
        // `--help` and `--version`.
        Err(asked) => match write!(std::io::stdout(), "{asked}") {
            Ok(()) => 0,
            Err(_) => sysexits::IOERR,
        },
    }
}
