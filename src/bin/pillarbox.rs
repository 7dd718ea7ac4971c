//! The administrator's and user's tool. All of it is in [`pillarbox::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pillarbox::cli::pillarbox::main(std::env::args_os()).into()
}
