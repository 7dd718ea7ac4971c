//! `pillarbox` from its words to its exit status: one subcommand, one file.
//!
//! The words are clap's to read; that it finds fault with them is 64 here, as everywhere, and not its own 2. Called by
//! a name of the drop-in's, as through a link, this program is the drop-in: the two differ in their names only.

use super::exit::sysexits;
use super::sendmail::{self, Face};
use super::{check, completions, import, init, login, mail, queue, run, sandbox, serve, signals};
use crate::outcome::escaped;
use crate::secret;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// The administrator's and user's tool of Pillarbox, a mail relay for machines that only send.
#[derive(Debug, Parser)]
#[command(name = "pillarbox", version, disable_help_subcommand = true)]
pub struct Words {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the queue and change it.
    Queue {
        /// Read this configuration.
        #[arg(short = 'C', value_name = "FILE")]
        config: Option<PathBuf>,
        /// Without any: list.
        #[command(subcommand)]
        action: Option<queue::Action>,
    },
    /// See whether mail would go out, and what mends it where it would not.
    Check(check::Words),
    /// Take the mail of a whole machine, on a UNIX socket, and see to it that it is sent.
    Serve {
        /// Read this configuration.
        #[arg(short = 'C', value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Set up: find the mail server of an address, try it, and write the configuration.
    Init(init::Words),
    /// Make a configuration of another program's.
    Import(import::Words),
    /// Send a text and files.
    #[command(disable_help_flag = true)]
    Mail {
        /// See `pillarbox mail --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Put an account's password where it is looked for: into the keyring, or a file.
    Login(login::Login),
    /// Take it away from there.
    Logout(login::Logout),
    /// Print what lets a shell complete our words.
    Completions(completions::Words),
    /// Try things out: an embedded relay that shows every letter and sends none.
    Sandbox(sandbox::Words),
}

/// Runs a subcommand under the name that the program was called by. Returns the exit status.
pub fn main(program: &str, words: impl IntoIterator<Item = OsString>) -> u8 {
    if matches!(program, "sendmail" | "mailq" | "newaliases" | "send-mail" | run::RUNNER) {
        return sendmail::main(program, words);
    }
    let mut words = words.into_iter().peekable();
    if mail::is_mailx(program) {
        return mail::main(program, words);
    }
    // Its words are read by a table of their own: clap would take the `--` before an address that begins with a dash.
    if words.next_if(|word| word == "mail").is_some() {
        return mail::main("pillarbox", words);
    }
    if program == secret::KEEPER {
        return login::keeper(words);
    }
    let face = Face { program: "pillarbox" };
    if words.next_if(|word| word == completions::COMPLETE).is_some() {
        return completions::complete(face, words);
    }
    match Words::try_parse_from([program.into()].into_iter().chain(words)) {
        Ok(Words { command: Command::Queue { config, action } }) => {
            sendmail::settle_in();
            queue::main(face, config.as_deref(), &action.unwrap_or_default())
        }
        Ok(Words { command: Command::Check(words) }) => {
            sendmail::settle_in();
            signals::leave();
            check::main(face, &words)
        }
        Ok(Words { command: Command::Serve { config } }) => {
            sendmail::settle_in();
            serve::main(face, config)
        }
        Ok(Words { command: Command::Init(words) }) => init::main(face, &words),
        Ok(Words { command: Command::Import(words) }) => import::main(face, &words),
        Ok(Words { command: Command::Mail { words } }) => mail::main("pillarbox", words),
        Ok(Words { command: Command::Login(words) }) => login::login(face, &words),
        Ok(Words { command: Command::Logout(words) }) => login::logout(face, &words),
        Ok(Words { command: Command::Completions(words) }) => completions::main(face, &words),
        Ok(Words { command: Command::Sandbox(words) }) => sandbox::main(face, &words),
        Err(usage) if usage.use_stderr() => {
            // It quotes the word, whoever has chosen it.
            let lines: Vec<String> = usage.to_string().split('\n').map(escaped).collect();
            let _ = write!(std::io::stderr(), "{}", lines.join("\n"));
            sysexits::USAGE
        }
        Err(asked) => face.print(&asked.to_string()),
    }
}
