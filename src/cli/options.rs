//! sendmail's command line: one table, the parser that reads it, and the help text printed from it.
//!
//! This file says what was *typed*; [`super::meaning`] says what it amounts to. The rules are getopt's with
//! POSIX order: options may be clustered (`-tif addr`), values attached or separate (`-f a`, `-fa`) except
//! where the table says `Attached`, and the first word that is no option ends them. What starts with `-`
//! behind a recipient is refused rather than guessed at: taking it for an address mails `-t@host`, taking it
//! for an option lets whoever chose the recipient choose options too.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Whether and how an option takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// None.
    Nothing,
    /// One, attached or as the next word.
    Value,
    /// Perhaps one, attached only.
    Attached,
}

/// What we do about an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It has its effect.
    Honoured,
    /// Taken, with its value, and without effect.
    Ignored,
    /// Exit 64.
    Refused,
}

/// A row of the table: an option, or one value of `-b`, `-o` and `-q` that has a meaning of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// As it is typed: `-f`, `-bp`, `-oi`, `--help`.
    pub spelling: &'static str,
    /// The value's name in help and manual; empty where there is none.
    pub value: &'static str,
    /// Whether it takes one.
    pub takes: Takes,
    /// What we do about it.
    pub treatment: Treatment,
    /// One line for `--help`; the manual says more.
    pub help: &'static str,
    /// The only name of the program under which it is known; `None`: it is known under all.
    pub program: Option<&'static str>,
}

impl Row {
    /// Whether it is known under this name.
    pub fn is_for(&self, program: &str) -> bool {
        self.program.is_none_or(|only| only == program)
    }
}

/// A row in one line, so that the table below reads as a table.
pub const fn row(
    spelling: &'static str,
    value: &'static str,
    takes: Takes,
    treatment: Treatment,
    help: &'static str,
) -> Row {
    Row { spelling, value, takes, treatment, help, program: None }
}

/// The name under which we know the options of msmtp, too.
pub const MSMTP: &str = "msmtp";

/// A row that only msmtp has.
const fn own(
    spelling: &'static str,
    value: &'static str,
    takes: Takes,
    treatment: Treatment,
    help: &'static str,
) -> Row {
    Row { spelling, value, takes, treatment, help, program: Some(MSMTP) }
}

use Takes::{Attached, Nothing, Value};
use Treatment::{Honoured, Ignored, Refused};

/// Every option of every sendmail that callers pass. Single letters first (the parser looks only at those),
/// then the words that the values of `-b`, `-o` and `-q` have, then the long ones.
#[rustfmt::skip]
pub const OPTIONS: &[Row] = &[
    row("-A", "c|m",     Value,    Ignored,  "choose between sendmail.cf files; there is one configuration here"),
    row("-a", "account", Value,    Honoured, "send through this account"),
    row("-B", "type",    Value,    Ignored,  "body type (7BIT, 8BITMIME); found out from the body itself"),
    row("-b", "mode",    Value,    Honoured, "mode of operation, see below"),
    row("-C", "file",    Value,    Honoured, "read this configuration"),
    row("-c", "",        Nothing,  Ignored,  "old: do not connect now"),
    row("-D", "file",    Value,    Ignored,  "debug log; nothing is opened by name from the command line"),
    row("-d", "level",   Attached, Ignored,  "debugging; -d0.1 prints the version"),
    row("-E", "",        Attached, Ignored,  "old Sony NEWS option"),
    row("-e", "mode",    Value,    Honoured, "as -oe"),
    row("-F", "name",    Value,    Honoured, "full name for a From: that we write"),
    row("-f", "address", Value,    Honoured, "envelope sender; '' or <> is the null reverse-path"),
    row("-G", "",        Nothing,  Honoured, "gateway: do not complete the header"),
    row("-h", "hops",    Value,    Ignored,  "hop count; Received: fields are counted instead"),
    row("-I", "",        Nothing,  Honoured, "as -bi"),
    row("-i", "",        Nothing,  Honoured, "a line of a lone dot does not end the message"),
    row("-J", "",        Attached, Ignored,  "old Sony NEWS option"),
    row("-L", "tag",     Value,    Honoured, "name of this program in the log"),
    row("-M", "value",   Value,    Refused,  "macros and queue ids of other sendmails"),
    row("-m", "",        Nothing,  Ignored,  "send to me too; nobody is ever left out"),
    row("-N", "when",    Value,    Honoured, "ask for delivery reports: never, or some of failure,delay,success"),
    row("-n", "",        Nothing,  Ignored,  "do no aliasing"),
    row("-O", "name=value", Value, Honoured, "long form of -o: DeliveryMode, ErrorMode, IgnoreDots; others are \
                                              ignored"),
    row("-o", "option",  Value,    Honoured, "set an option, see below; others are ignored"),
    row("-p", "protocol", Value,   Ignored,  "protocol and host it came from"),
    row("-Q", "reason",  Attached, Refused,  "quarantine; see pillarbox queue hold"),
    row("-q", "",        Attached, Honoured, "run the queue, see below"),
    row("-R", "what",    Value,    Honoured, "how much a delivery report returns: hdrs or full"),
    row("-r", "address", Value,    Honoured, "as -f"),
    row("-S", "",        Nothing,  Ignored,  "of no use here"),
    row("-s", "",        Nothing,  Ignored,  "keep From lines; mbox lines are never part of a message"),
    row("-T", "",        Nothing,  Ignored,  "of no use here"),
    row("-t", "",        Nothing,  Honoured, "read recipients from To:, Cc: and Bcc:; those named here are added"),
    row("-U", "",        Nothing,  Ignored,  "initial submission; SMTPUTF8 is used where it is needed"),
    row("-V", "envid",   Value,    Honoured, "envelope id for delivery reports"),
    row("-v", "",        Nothing,  Honoured, "deliver now and show the dialogue on standard error, secrets masked"),
    row("-X", "file",    Value,    Ignored,  "traffic log; nothing is opened by name from the command line"),
    row("-x", "",        Nothing,  Ignored,  "old AIX option"),
    row("-bm", "", Nothing, Honoured, "deliver a message from standard input (the default)"),
    row("-bp", "", Nothing, Honoured, "list the queue, as mailq"),
    row("-bi", "", Nothing, Honoured, "check the aliases, as newaliases"),
    row("-bs", "", Nothing, Honoured, "speak SMTP on standard input and output"),
    row("-bh", "", Nothing, Ignored,  "host status; there is none"),
    row("-bH", "", Nothing, Ignored,  "clear host status; there is none"),
    row("-ba", "", Nothing, Refused,  "ARPANET mode"),
    row("-bD", "", Nothing, Refused,  "run as a daemon in the foreground; see pillarbox(1)"),
    row("-bd", "", Nothing, Refused,  "run as a daemon; see pillarbox(1)"),
    row("-bl", "", Nothing, Refused,  "run as a local daemon; see pillarbox(1)"),
    row("-bP", "", Nothing, Refused,  "count the queue; see pillarbox queue list"),
    row("-bS", "", Nothing, Refused,  "batched SMTP"),
    row("-bt", "", Nothing, Refused,  "address test mode; a relay-only MTA has no rules to test"),
    row("-bv", "", Nothing, Refused,  "verify addresses; only the relay can"),
    row("-od", "i|b|q|d", Value, Honoured, "i (default): try now and wait for the answer; b: queue, deliver in the \
                                            background; q, d: queue only"),
    row("-oe", "p|q|e|m|w", Value, Honoured, "errors: p (default) print; q exit status only; m, w mail back; e mail \
                                              back and exit 0"),
    row("-oi", "", Nothing, Honoured, "as -i"),
    row("-q", "f",          Attached, Honoured, "-qf: run everything now, due or not"),
    row("-q", "time",       Attached, Honoured, "-q30m: stay, and run what is due every 30 minutes"),
    row("-q", "[!]I|R|Stext", Attached, Honoured, "-qI, -qR, -qS: only letters whose id, recipient or sender contains \
                                                   text (!: does not)"),
    row("--help",    "", Nothing, Honoured, "print this"),
    row("--version", "", Nothing, Honoured, "print the version"),

    own("-d", "level",         Attached, Honoured, "as -v"),
    own("-P", "",              Nothing,  Honoured, "as --pretend"),
    own("-S", "",              Nothing,  Honoured, "as --serverinfo"),
    own("--account", "name",   Value,    Honoured, "as -a"),
    own("--debug", "",         Attached, Honoured, "as -v"),
    own("--dsn-notify", "when", Value,   Honoured, "as -N"),
    own("--dsn-return", "what", Value,   Honoured, "as -R"),
    own("--file", "file",      Value,    Honoured, "as -C"),
    own("--from", "address",   Value,    Honoured, "as -f"),
    own("--pretend", "",       Nothing,  Honoured, "print the account that would be used, and send nothing"),
    own("--read-envelope-from", "", Nothing, Honoured, "the author in the header is the envelope sender"),
    own("--read-recipients", "", Nothing, Honoured, "as -t"),
    own("--serverinfo", "",    Nothing,  Honoured, "show what the relay says of itself, and send nothing"),
    own("--add-missing-date-header", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--add-missing-from-header", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--aliases", "file",   Value,    Honoured, "as in the msmtprc; guarded"),
    own("--auth", "mechanism", Attached, Honoured, "as in the msmtprc"),
    own("--auto-from", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--connect-timeout", "seconds", Value, Honoured, "as in the msmtprc"),
    own("--domain", "name",    Value,    Honoured, "as in the msmtprc"),
    own("--host", "name",      Value,    Honoured, "send there; no configuration is read"),
    own("--keepbcc", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--logfile-time-format", "format", Value, Honoured, "as in the msmtprc"),
    own("--maildomain", "name", Value,   Honoured, "as in the msmtprc"),
    own("--passwordeval", "command", Value, Honoured, "as in the msmtprc; guarded"),
    own("--port", "number",    Value,    Honoured, "as in the msmtprc"),
    own("--protocol", "name",  Value,    Honoured, "as in the msmtprc"),
    own("--proxy-host", "name", Value,   Honoured, "as in the msmtprc; guarded"),
    own("--proxy-port", "number", Value, Honoured, "as in the msmtprc; guarded"),
    own("--queue", "on|off",   Value,    Honoured, "as in the msmtprc"),
    own("--remove-bcc-headers", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--set-date-header", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--set-from-header", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--set-msgid-header", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--set-to-header", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--socket", "path",    Value,    Honoured, "as in the msmtprc; guarded"),
    own("--source-ip", "address", Value, Honoured, "as in the msmtprc"),
    own("--syslog", "facility", Attached, Honoured, "as in the msmtprc"),
    own("--timeout", "seconds", Value,   Honoured, "as in the msmtprc"),
    own("--tls", "switch",     Attached, Honoured, "as in the msmtprc"),
    own("--tls-cert-file", "file", Value, Honoured, "as in the msmtprc; guarded"),
    own("--tls-certcheck", "switch", Attached, Honoured, "as in the msmtprc; guarded"),
    own("--tls-crl-file", "file", Value, Honoured, "as in the msmtprc; guarded"),
    own("--tls-fingerprint", "hex", Value, Honoured, "as in the msmtprc; guarded"),
    own("--tls-host-override", "name", Value, Honoured, "as in the msmtprc; guarded"),
    own("--tls-key-file", "file", Value, Honoured, "as in the msmtprc; guarded"),
    own("--tls-starttls", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--tls-trust-file", "file", Value, Honoured, "as in the msmtprc; guarded"),
    own("--undisclosed-recipients", "switch", Attached, Honoured, "as in the msmtprc"),
    own("--user", "name",      Value,    Honoured, "as in the msmtprc"),
    own("--logfile", "file",   Value,    Ignored,  "as -X; write logfile into the msmtprc"),
    own("--tls-force-sslv3", "", Nothing, Ignored, "never spoken"),
    own("--tls-min-dh-prime-bits", "number", Value, Ignored, "finite-field Diffie-Hellman is not spoken"),
    own("--tls-priorities", "string", Value, Ignored, "the ciphers are strong as they are"),
    own("--configure", "address", Value, Refused,  "pillarbox init finds what an address needs; see \
                                                    pillarbox-msmtprc(5) for the rest"),
    own("--rmqs", "what",      Value,    Refused,  "ETRN is for hosts that receive mail"),
];

/// Options of msmtp that decide what is run, which files are opened, or whom a password is shown to. An argument may
/// say that only where the environment trusts arguments.
pub const GUARDED: [&str; 12] = [
    "--aliases",
    "--passwordeval",
    "--proxy-host",
    "--proxy-port",
    "--socket",
    "--tls-cert-file",
    "--tls-certcheck",
    "--tls-crl-file",
    "--tls-fingerprint",
    "--tls-host-override",
    "--tls-key-file",
    "--tls-trust-file",
];

/// What was typed, checked against the table and still without meaning.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// The options in their order, each with its row and value (empty where it takes none).
    pub options: Vec<(&'static Row, OsString)>,
    /// The words behind them.
    pub recipients: Vec<OsString>,
}

/// Why a command line cannot be read. All of them are exit 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// No such letter or long option.
    Unknown(String),
    /// A value option at the end without its value.
    MissingValue(&'static str),
    /// An option behind a recipient.
    OptionAfterRecipient(String),
    /// `-` alone.
    LoneDash,
    /// The table refuses it.
    Refused(&'static str, &'static str),
    /// A value that the option does not take.
    BadValue(&'static str, String),
    /// Recipients where the mode has none.
    RecipientsHere(&'static str),
    /// An argument that is not UTF-8 where text is needed.
    NotText(String),
    /// The beginning of several long options.
    Ambiguous(String),
    /// Two options that exclude each other.
    Contradiction(&'static str, &'static str),
    /// An option that arguments may have only where they are trusted.
    Guarded(&'static str),
    /// What is wrong, in a sentence.
    Wrong(String),
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(option) => write!(f, "unknown option {option}"),
            Self::MissingValue(option) => write!(f, "option {option} needs a value"),
            Self::OptionAfterRecipient(word) => {
                write!(f, "{word}: options must precede recipients; use -- before an address starting with '-'")
            }
            Self::LoneDash => f.write_str("'-' is neither an option nor a recipient"),
            Self::Refused(option, why) => write!(f, "{option} is not supported by a relay-only MTA ({why})"),
            Self::BadValue(option, value) => write!(f, "option {option} does not take the value '{value}'"),
            Self::RecipientsHere(what) => write!(f, "{what} takes no recipients"),
            Self::Ambiguous(option) => write!(f, "several options begin with {option}"),
            Self::Contradiction(one, other) => write!(f, "{one} and {other} exclude each other"),
            Self::Guarded(option) => write!(
                f,
                "{option} decides what is run or whom a password is shown to, and web forms reach our arguments; write \
                 it into the configuration, or set PILLARBOX_ARGUMENTS=trusted, which no argument can"
            ),
            Self::Wrong(sentence) => f.write_str(sentence),
            Self::NotText(word) => write!(f, "'{word}' is not UTF-8"),
        }
    }
}

/// The row of an option letter; one that only this program has goes first.
fn find(table: &'static [Row], program: &str, letter: char) -> Option<&'static Row> {
    let is_it = |row: &&Row| row.spelling.strip_prefix('-').is_some_and(|rest| rest.chars().eq([letter]));
    let rows = || table.iter().filter(is_it).filter(|row| row.is_for(program));
    rows().find(|row| row.program.is_some()).or_else(|| rows().next())
}

/// Reads the words behind the program's name, which decides about some of them.
pub fn parse(program: &str, words: impl IntoIterator<Item = OsString>) -> Result<Typed, Usage> {
    parse_by(OPTIONS, program, words)
}

/// As [`parse`], by another table.
pub fn parse_by(
    table: &'static [Row],
    program: &str,
    words: impl IntoIterator<Item = OsString>,
) -> Result<Typed, Usage> {
    let mut words = words.into_iter();
    let mut typed = Typed::default();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            typed.recipients.extend(words);
            return Ok(typed);
        }
        if bytes == b"-" {
            return Err(Usage::LoneDash);
        }
        if bytes.starts_with(b"--") {
            typed.options.push(long(table, program, bytes, &mut words)?);
        } else if bytes.starts_with(b"-") {
            cluster(table, program, &bytes[1..], &mut words, &mut typed)?;
        } else {
            typed.recipients.push(word);
            for word in words {
                if word.as_bytes().starts_with(b"-") {
                    return Err(Usage::OptionAfterRecipient(word.to_string_lossy().into_owned()));
                }
                typed.recipients.push(word);
            }
            return Ok(typed);
        }
    }
    Ok(typed)
}

/// Reads a long option: `--name`, `--name=value`, or `--name value` where one is needed. msmtp's may be cut short.
fn long(
    table: &'static [Row],
    program: &str,
    word: &[u8],
    words: &mut impl Iterator<Item = OsString>,
) -> Result<(&'static Row, OsString), Usage> {
    let equals = word.iter().position(|&octet| octet == b'=');
    let (name, value) = equals.map_or((word, None), |at| (&word[..at], Some(&word[at + 1..])));
    let shown = || String::from_utf8_lossy(name).into_owned();
    let rows = || table.iter().filter(|row| row.is_for(program) && row.spelling.starts_with("--"));
    let exact = rows().find(|row| row.spelling.as_bytes() == name);
    let mut begun = rows().filter(|row| program == MSMTP && row.spelling.as_bytes().starts_with(name));
    let row = match (exact, begun.next(), begun.next()) {
        (Some(row), _, _) | (None, Some(row), None) => row,
        (None, Some(_), Some(_)) => return Err(Usage::Ambiguous(shown())),
        (None, None, _) => return Err(Usage::Unknown(shown())),
    };
    if row.treatment == Refused {
        return Err(Usage::Refused(row.spelling, row.help));
    }
    let value = match (row.takes, value) {
        (Nothing, Some(value)) => {
            return Err(Usage::BadValue(row.spelling, String::from_utf8_lossy(value).into_owned()));
        }
        (Value, None) => words.next().ok_or(Usage::MissingValue(row.spelling))?.into_vec(),
        (_, value) => value.unwrap_or_default().to_vec(),
    };
    Ok((row, OsString::from_vec(value)))
}

/// Reads one word of clustered letters, the last of which may take the rest of it, or the next word, as its value.
fn cluster(
    table: &'static [Row],
    program: &str,
    mut letters: &[u8],
    words: &mut impl Iterator<Item = OsString>,
    typed: &mut Typed,
) -> Result<(), Usage> {
    while let [letter, rest @ ..] = letters {
        let unknown = || Usage::Unknown(format!("-{}", char::from(*letter).escape_default()));
        let row = find(table, program, char::from(*letter)).ok_or_else(unknown)?;
        if row.treatment == Refused {
            return Err(Usage::Refused(row.spelling, row.help));
        }
        let value = match row.takes {
            Nothing => {
                typed.options.push((row, OsString::new()));
                letters = rest;
                continue;
            }
            Value if rest.is_empty() => words.next().ok_or(Usage::MissingValue(row.spelling))?.into_vec(),
            Value | Attached => rest.to_vec(),
        };
        typed.options.push((row, OsString::from_vec(value)));
        return Ok(());
    }
    Ok(())
}

/// The text of `--help`.
pub fn help(program: &str) -> String {
    let mut text = format!(
        "usage: {program} [options] [--] [recipient ...]\n\n\
         Relays the message on standard input to its recipients, or queues it.\n"
    );
    text.push_str(&rows_as_help(OPTIONS, program));
    text.push_str("\nsendmail(8) tells the rest.\n");
    text
}

/// A table's part of a text of `--help`.
pub fn rows_as_help(table: &[Row], program: &str) -> String {
    use fmt::Write;
    let mut text = String::new();
    for (title, treatment) in [("Options", Honoured), ("Taken and ignored", Ignored), ("Refused (exit 64)", Refused)] {
        let mut rows = table.iter().filter(|row| row.treatment == treatment && row.is_for(program)).peekable();
        if rows.peek().is_some() {
            let _ = write!(text, "\n{title}:\n");
        }
        for row in rows {
            let gap = match row.takes {
                _ if row.value.is_empty() => "",
                _ if row.spelling.starts_with("--") => "=",
                Attached | Nothing => "",
                Value => " ",
            };
            let _ = writeln!(text, "  {:<18} {}", format!("{}{gap}{}", row.spelling, row.value), row.help);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `-t= -f=a@b | recipients`
    fn flat(line: &[&str]) -> Result<String, Usage> {
        let text = |word: OsString| word.into_string().unwrap();
        parse("sendmail", line.iter().map(OsString::from)).map(|typed| {
            let options = typed.options.into_iter().map(|(row, value)| format!("{}={}", row.spelling, text(value)));
            let recipients: Vec<String> = typed.recipients.into_iter().map(text).collect();
            format!("{} | {}", options.collect::<Vec<_>>().join(" "), recipients.join(" "))
        })
    }

    #[test]
    fn clusters_and_values_are_read_as_getopt_does() {
        for (line, want) in [
            (&["-ti"][..], "-t= -i= | "),
            (&["-it", "a"], "-i= -t= | a"),
            (&["-tif", "a@b", "c"], "-t= -i= -f=a@b | c"),
            (&["-itfa@b"], "-i= -t= -f=a@b | "),
            (&["-oit"], "-o=it | "),
            (&["-o", "i"], "-o=i | "),
            (&["-oe", "m"], "-o=e | m"),
            (&["-f", ""], "-f= | "),
            (&["-f", "-weird"], "-f=-weird | "),
            (&["-q", "user@x"], "-q= | user@x"),
            (&["-q30m"], "-q=30m | "),
            (&["-d", "a"], "-d= | a"),
            (&["-d0.1"], "-d=0.1 | "),
            (&["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"], "-F=CronDaemon -i= -B=8BITMIME -o=em | root"),
            (&["-B", "8BITMIME", "x"], "-B=8BITMIME | x"),
            (&["--", "-dash@x", "--"], " | -dash@x --"),
            (&["-V%08s"], "-V=%08s | "),
            (&["-v", "-v", "-t", "-t"], "-v= -v= -t= -t= | "),
        ] {
            assert_eq!(flat(line).unwrap(), want, "{line:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_never_guessed() {
        for (line, want) in [
            (&["a@b", "-t"][..], Usage::OptionAfterRecipient("-t".into())),
            (&["a@b", "-f", "x"], Usage::OptionAfterRecipient("-f".into())),
            (&["-i", "a", "--", "b"], Usage::OptionAfterRecipient("--".into())),
            (&["-"], Usage::LoneDash),
            (&["-z", "a"], Usage::Unknown("-z".into())),
            (&["-tz"], Usage::Unknown("-z".into())),
            (&["--frob"], Usage::Unknown("--frob".into())),
            (&["-tf"], Usage::MissingValue("-f")),
        ] {
            assert_eq!(flat(line), Err(want), "{line:?}");
        }
        assert!(matches!(flat(&["-Mr", "x"]), Err(Usage::Refused("-M", _))));
        assert!(matches!(flat(&["-\u{e9}"]), Err(Usage::Unknown(_))));
    }

    #[test]
    fn every_row_is_in_the_help_text() {
        let text = help(MSMTP);
        for row in OPTIONS {
            assert!(text.contains(row.spelling) && text.contains(row.help), "{}", row.spelling);
        }
        assert!(!help("sendmail").contains("--host"));
    }

    #[test]
    fn msmtps_options_are_known_under_its_name_alone() {
        let flat = |program: &str, line: &[&str]| {
            parse(program, line.iter().map(OsString::from)).map(|typed| {
                let one = |(row, value): &(&Row, OsString)| format!("{}={}", row.spelling, value.to_string_lossy());
                typed.options.iter().map(one).collect::<Vec<_>>().join(" ")
            })
        };
        for (line, want) in [
            (
                &["--host=h", "--port", "25", "--tls", "--tls-starttls=off", "a"][..],
                "--host=h --port=25 --tls= --tls-starttls=off",
            ),
            (&["--acc=x", "--read-r"], "--account=x --read-recipients="),
            (&["-P", "-a", "x", "-d"], "-P= -a=x -d="),
            (&["--tls=on"], "--tls=on"),
            (&["-t", "-i", "-S"], "-t= -i= -S="),
        ] {
            assert_eq!(flat(MSMTP, line).as_deref(), Ok(want), "{line:?}");
        }
        for (line, want) in [
            (&["--tls-c"][..], Usage::Ambiguous("--tls-c".into())),
            (&["--frob=x"], Usage::Unknown("--frob".into())),
            (&["--host"], Usage::MissingValue("--host")),
            (&["--pretend=x"], Usage::BadValue("--pretend", "x".into())),
        ] {
            assert_eq!(flat(MSMTP, line), Err(want), "{line:?}");
        }
        assert!(matches!(flat(MSMTP, &["--rmqs=x"]), Err(Usage::Refused("--rmqs", _))));
        assert_eq!(flat("sendmail", &["--host=h"]), Err(Usage::Unknown("--host".into())));
        assert_eq!(flat("sendmail", &["--hel"]), Err(Usage::Unknown("--hel".into())));
    }
}
