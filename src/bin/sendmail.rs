//! The drop-in: `sendmail`, `mailq`, `newaliases`, `send-mail`. All of it is in [`pillarbox::cli`].

fn main() {}
