//! What becomes of `eval COMMAND`, whose first line of output stands for the line, in msmtp.
//!
//! msmtp runs it while it reads the file, whichever account is used, with the letter as its standard input. Here
//! reading settings never runs anything: a queue listing must not ask for a passphrase, and what a file means must not
//! depend on when it is read. That leaves three cases:
//!
//! - `echo KEYWORD ARGUMENT` without anything for the shell to do is that line;
//! - a command whose line begins with `password`, or cannot be known, is where the account's password comes from: it
//!   is run when the relay asks for one, as `passwordeval` is. Should the line turn out to be something else, the
//!   letter is kept and the sentence says so;
//! - a command that visibly prints another keyword would have to be run now, and is an error.
//!
//! The alternative, to run it here, was judged not to be worth the wall that it would breach.

/// What an `eval` amounts to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Eval<'a> {
    /// This line.
    Line(&'a str),
    /// The password, once the command is run.
    Password,
    /// Whatever the command prints; the password, if it can be used at all.
    Unknown,
}

/// Judges a command.
pub(super) fn read(command: &str) -> Result<Eval<'_>, String> {
    let command = command.trim();
    if command.is_empty() {
        return Err("the command is missing".to_owned());
    }
    if command.contains('\0') {
        return Err("has a NUL in it".to_owned());
    }
    let (program, words) = command.split_once([' ', '\t']).unwrap_or((command, ""));
    let words = words.trim_start();
    if !matches!(program, "echo" | "printf") {
        return Ok(Eval::Unknown);
    }
    let inner = words.strip_prefix(['"', '\'']);
    let quote = inner.and(words.chars().next());
    let line = inner.and_then(|inner| inner.strip_suffix(quote?)).unwrap_or(words);
    let keyword = inner.unwrap_or(words).split([' ', '\t', '"', '\'', '\\']).next().unwrap_or_default();
    // The shell makes one blank of many outside of quotes; a line is read the same either way.
    let is_plain = program == "echo"
        && !line.starts_with('-')
        && !line.contains(|c: char| "$`\\\"'*?[]{}()<>|&;~!#".contains(c) || c.is_control());
    if is_plain {
        Ok(Eval::Line(line))
    } else if keyword == "password" {
        Ok(Eval::Password)
    } else if keyword.contains(['$', '`', '%']) || keyword.is_empty() {
        Ok(Eval::Unknown)
    } else {
        Err(format!(
            "no command is run to read a configuration, and what is evaluated later can only be a password; write the \
             line itself ({keyword} …)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_that_needs_no_shell_is_known_at_once() {
        for (command, expected) in [
            ("echo host smtp.example.com", Some(Eval::Line("host smtp.example.com"))),
            ("echo 'host smtp.example.com'", Some(Eval::Line("host smtp.example.com"))),
            ("echo \"user  alice\"", Some(Eval::Line("user  alice"))),
            ("echo password s3cret", Some(Eval::Line("password s3cret"))),
            ("echo password $(pass show mail)", Some(Eval::Password)),
            ("echo \"password $(pass show mail)\"", Some(Eval::Password)),
            ("printf 'password %s' \"$(gpg -d x)\"", Some(Eval::Password)),
            ("gpg -qd ~/.msmtp.gpg", Some(Eval::Unknown)),
            ("echo $LINE", Some(Eval::Unknown)),
            ("echo host $RELAY", None),
            ("echo user `whoami`", None),
            ("printf 'host %s\\n' x", None),
            ("", None),
        ] {
            assert_eq!(read(command).ok(), expected, "{command}");
        }
    }
}
