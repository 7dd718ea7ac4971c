//! The drop-in: `sendmail`, `mailq`, `newaliases`, `send-mail`, `msmtp`. All of it is in [`pillarbox::cli`].

fn main() -> std::process::ExitCode {
    pillarbox::cli::main(pillarbox::cli::sendmail::main)
}
