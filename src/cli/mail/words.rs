//! The command lines of `pillarbox mail` and of `mail`: one table, and what the words amount to.
//!
//! Under the names `mail` and `mailx` the options are POSIX mailx's for sending, with what users of s-nail, bsd-mailx
//! and GNU mailutils are used to where these agree or can be told apart: `-a FILE` is s-nail's and `-a 'Name: value'`
//! the others', and a file that is there goes first; `-A` names an account (s-nail), else a file (GNU). What concerns
//! reading mail is refused. The parser is [`super::super::options`]'s: options end at the first recipient, so that
//! whoever chose the recipient does not choose options too. Nothing is opened here.

use super::super::meaning::Delivery;
use super::super::options::{Row, Takes, Treatment, Typed, Usage, parse_by, row, rows_as_help};
use crate::compose::is_field_name;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use Takes::{Nothing, Value};
use Treatment::{Honoured, Ignored, Refused};

/// The name under which we are a mailx.
pub const MAIL: &str = "mail";
/// The name of our own subcommand.
pub const OWN: &str = "pillarbox mail";

/// A row that only one of the two has.
#[expect(clippy::needless_pass_by_value, reason = "a constant row made of another")]
const fn only(program: &'static str, row: Row) -> Row {
    Row { program: Some(program), ..row }
}

const READING: &str = "it concerns reading mail, and there is no mailbox here";

/// Every option.
#[rustfmt::skip]
pub const OPTIONS: &[Row] = &[
    row("-s", "subject",   Value,   Honoured, "the subject"),
    row("-c", "addresses", Value,   Honoured, "send to these, too, for all to see"),
    row("-b", "addresses", Value,   Honoured, "send to these, too, for nobody to see"),
    row("-r", "address",   Value,   Honoured, "the sender, perhaps with a name"),
    only(OWN, row("-a", "file", Value, Honoured, "attach this file; may be given again")),
    only(OWN, row("-A", "account", Value, Honoured, "send through this account")),
    only(OWN, row("-C", "file", Value, Honoured, "read this configuration")),
    only(OWN, row("-S", "name=value", Value, Honoured, "add this field to the header")),
    only(MAIL, row("-a", "file|field", Value, Honoured, "attach this file, or add this 'Name: value' to the header")),
    only(MAIL, row("-A", "account|file", Value, Honoured, "send through this account, or attach this file")),
    only(MAIL, row("-C", "field", Value, Honoured, "add this 'Name: value' to the header")),
    only(MAIL, row("-S", "name=value", Value, Honoured, "from=address as -r; a field of the header where the name \
                                                         begins with a capital; s-nail's other variables are ignored")),
    only(MAIL, row("-q", "file", Value, Honoured, "begin the text with this file")),
    only(MAIL, row("-t", "", Nothing, Honoured, "the text begins with a header: recipients, subject and other fields \
                                                 are taken from it")),
    row("-E", "", Nothing, Honoured, "send nothing, successfully, where there is no text"),
    row("-i", "", Nothing, Honoured, "ignore Ctrl-C while the text is typed"),
    row("-v", "", Nothing, Honoured, "show the dialogue with the relay"),
    row("--html", "file", Value, Honoured, "the same text as HTML"),
    only(MAIL, row("--subject", "subject", Value, Honoured, "as -s")),
    only(MAIL, row("--append", "field", Value, Honoured, "add this 'Name: value' to the header")),
    only(MAIL, row("--attach", "file", Value, Honoured, "attach this file")),
    only(MAIL, row("--return-address", "address", Value, Honoured, "as -r")),
    row("--help", "", Nothing, Honoured, "print this"),
    only(MAIL, row("--version", "", Nothing, Honoured, "print the version")),
    only(MAIL, row("-n", "", Nothing, Ignored, "do not read mail.rc")),
    only(MAIL, row("-I", "", Nothing, Ignored, "interactive; a terminal is seen")),
    only(MAIL, row("-B", "", Nothing, Ignored, "buffering")),
    only(MAIL, row("-#", "", Nothing, Ignored, "batch mode; a terminal is seen")),
    only(MAIL, row("-~", "", Nothing, Refused, "tilde escapes are off: they run commands")),
    only(MAIL, row("-d", "", Nothing, Refused, "s-nail sends nothing then, others do")),
    only(MAIL, row("-X", "command", Value, Refused, "commands are of no use here")),
    only(MAIL, row("-F", "", Nothing, Refused, "no copy is kept; -b sends you one")),
    only(MAIL, row("-e", "", Nothing, Refused, READING)),
    only(MAIL, row("-f", "file", Value, Refused, READING)),
    only(MAIL, row("-H", "", Nothing, Refused, READING)),
    only(MAIL, row("-L", "spec", Value, Refused, READING)),
    only(MAIL, row("-N", "", Nothing, Refused, READING)),
    only(MAIL, row("-p", "", Nothing, Refused, READING)),
    only(MAIL, row("-R", "", Nothing, Refused, READING)),
    only(MAIL, row("-u", "user", Value, Refused, READING)),
];

/// What is to be sent, as far as the words say it.
#[derive(Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option that is there or not")]
pub struct Order {
    /// Account, sender, configuration; its recipients are all of To, Cc and Bcc.
    pub delivery: Delivery,
    /// `-s`
    pub subject: Option<String>,
    /// The recipients' words.
    pub to: Vec<String>,
    /// `-c`
    pub cc: Vec<String>,
    /// `-b`
    pub bcc: Vec<String>,
    /// Other fields: name and value.
    pub fields: Vec<(String, String)>,
    /// `-a`, `--attach`
    pub files: Vec<PathBuf>,
    /// `-a` of a mailx, if no file of that name is there: name and value.
    pub files_or_fields: Vec<(PathBuf, (String, String))>,
    /// `-A` of a mailx: an account, else a file.
    pub account_or_file: Option<String>,
    /// `--html`
    pub html: Option<PathBuf>,
    /// `-q`
    pub beginning: Option<PathBuf>,
    /// `-t`
    pub has_header: bool,
    /// `-E`
    pub skip_empty: bool,
    /// `-i`
    pub ignore_interrupts: bool,
    /// `--help`
    pub help: bool,
    /// `--version`
    pub version: bool,
}

/// Reads the words behind the program's name, [`MAIL`] or [`OWN`].
pub fn read(program: &str, words: impl IntoIterator<Item = OsString>) -> Result<Order, Usage> {
    let Typed { options, recipients } = parse_by(OPTIONS, program, words)?;
    let mut order = Order::default();
    for (row, value) in options {
        if row.treatment == Honoured {
            order.take(program, row.spelling, value)?;
        }
    }
    if order.help || order.version {
        return Ok(order);
    }
    order.to.splice(0..0, recipients.iter().map(text).collect::<Result<Vec<_>, _>>()?);
    if [&order.to, &order.cc, &order.bcc].iter().all(|list| list.is_empty()) && !order.has_header {
        return Err(Usage::Wrong(format!("{program} sends mail and reads none; name a recipient")));
    }
    order.delivery.recipients = [&order.to[..], &order.cc, &order.bcc].concat();
    order.delivery.recipients_from_header = order.has_header;
    // Whoever writes whom it is from means it; -r goes first.
    order.delivery.sender_from_header = order.has_header && order.delivery.sender.is_none();
    Ok(order)
}

/// The text of `--help`.
pub fn help(program: &str) -> String {
    let head = format!(
        "usage: {program} [options] [--] recipient ...\n\n\
         Sends the text on standard input, with files, to its recipients.\n"
    );
    head + &rows_as_help(OPTIONS, program) + "\npillarbox(1) tells the rest.\n"
}

impl Order {
    fn take(&mut self, program: &str, spelling: &'static str, value: OsString) -> Result<(), Usage> {
        match spelling {
            "-A" if program == MAIL => self.account_or_file = Some(text(&value)?),
            "-A" => self.delivery.account = Some(text(&value)?),
            "-a" if program == MAIL => match value.to_str().and_then(header) {
                Some(field) => self.files_or_fields.push((PathBuf::from(&value), field)),
                None => self.files.push(PathBuf::from(value)),
            },
            "-a" | "--attach" => self.files.push(PathBuf::from(value)),
            "-b" => self.bcc.push(text(&value)?),
            "-C" if program == OWN => self.delivery.config = Some(PathBuf::from(value)),
            "-C" | "--append" => {
                let value = text(&value)?;
                let (name, value) = header(&value).ok_or_else(|| Usage::BadValue(spelling, value.clone()))?;
                self.field(name, value)?;
            }
            "-c" => self.cc.push(text(&value)?),
            "-E" => self.skip_empty = true,
            "-i" => self.ignore_interrupts = true,
            "-q" => self.beginning = Some(PathBuf::from(value)),
            "-r" | "--return-address" => self.delivery.sender = Some(text(&value)?),
            "-S" => self.variable(program, &text(&value)?)?,
            // A subject in another character set than UTF-8 is no reason not to send the letter.
            "-s" | "--subject" => self.subject = Some(value.to_string_lossy().into_owned()),
            "-t" => self.has_header = true,
            "-v" => self.delivery.verbose = true,
            "--html" => self.html = Some(PathBuf::from(value)),
            "--help" => self.help = true,
            "--version" => self.version = true,
            _ => {}
        }
        Ok(())
    }

    /// `-S name=value`.
    fn variable(&mut self, program: &str, text: &str) -> Result<(), Usage> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let is_field = program == OWN || name.starts_with(|c: char| c.is_ascii_uppercase());
        match name {
            _ if is_field => self.field(name.to_owned(), value.to_owned()),
            "from" => self.field("From".to_owned(), value.to_owned()),
            // They would choose whom a letter and a password go to, and the configuration does.
            _ if ["mta", "smtp", "user", "password", "tls", "ssl"].iter().any(|way| name.starts_with(way)) => {
                Err(Usage::Wrong(format!(
                    "-S {name}: which way letters go is the configuration's to say, see pillarbox.toml(5)"
                )))
            }
            _ => Ok(()),
        }
    }

    /// A field of the header. One that has an option of its own is that option.
    pub fn field(&mut self, name: String, value: String) -> Result<(), Usage> {
        if !is_field_name(&name) {
            return Err(Usage::Wrong(format!("'{name}' cannot be the name of a field")));
        }
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "to" => self.to.push(value),
            "cc" => self.cc.push(value),
            "bcc" => self.bcc.push(value),
            "subject" => self.subject = Some(value),
            "from" => self.delivery.sender = self.delivery.sender.take().or(Some(value)),
            "mime-version" => {}
            _ if lower.starts_with("resent-") => {
                return Err(Usage::Wrong(format!("{name} is for letters that are sent again; see sendmail -t")));
            }
            _ => self.fields.push((name, value)),
        }
        Ok(())
    }

    /// Tells files from fields, now that it is known which files are there.
    pub fn settle(&mut self, is_there: impl Fn(&Path) -> bool) -> Result<(), Usage> {
        for (path, (name, value)) in std::mem::take(&mut self.files_or_fields) {
            if is_there(&path) {
                self.files.push(path);
            } else {
                self.field(name, value)?;
            }
        }
        self.delivery.recipients = [&self.to[..], &self.cc, &self.bcc].concat();
        Ok(())
    }
}

/// `Name: value`, where the name is one that fields have.
fn header(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_name.then(|| (name.to_owned(), value.trim().to_owned()))
}

fn text(word: &OsString) -> Result<String, Usage> {
    word.to_str().map(str::to_owned).ok_or_else(|| Usage::NotText(word.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(program: &str, line: &[&str]) -> Result<Order, Usage> {
        let mut order = read(program, line.iter().map(OsString::from))?;
        order.settle(|path| path == Path::new("Note: is a file"))?;
        Ok(order)
    }

    #[test]
    fn a_files_name_and_a_field_are_told_apart() {
        let got =
            order(MAIL, &["-a", "X-A: 1", "-a", "/etc/motd", "-a", "Note: is a file", "-a", "c:/x y", "bob"]).unwrap();
        assert_eq!(got.fields, [("X-A".to_owned(), "1".to_owned()), ("c".to_owned(), "/x y".to_owned())]);
        assert_eq!(got.files, [Path::new("/etc/motd"), Path::new("Note: is a file")]);
        let got = order(OWN, &["-a", "X-A: 1", "bob"]).unwrap();
        assert_eq!((got.fields.len(), got.files), (0, vec![PathBuf::from("X-A: 1")]));
    }

    #[test]
    fn fields_with_an_option_of_their_own_are_that_option() {
        let words = ["-S", "Cc=c@x", "-S", "Subject=s", "-S", "From=f@x", "-S", "X-Y=z", "t@x"];
        let got = order(OWN, &words).unwrap();
        assert_eq!((got.subject.as_deref(), got.delivery.sender.as_deref()), (Some("s"), Some("f@x")));
        assert_eq!(got.delivery.recipients, ["t@x", "c@x"]);
        assert_eq!(got.fields, [("X-Y".to_owned(), "z".to_owned())]);
        let got = order(MAIL, &["-a", "From: F <f@x>", "-r", "r@x", "-S", "ttycharset=utf-8", "t@x"]).unwrap();
        assert_eq!(got.delivery.sender.as_deref(), Some("r@x"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (program, line) in [
            (MAIL, &["bob", "-s", "x"][..]),
            (MAIL, &["-f"]),
            (MAIL, &["-H"]),
            (MAIL, &[]),
            (MAIL, &["-~", "bob"]),
            (MAIL, &["-S", "mta=smtp://evil.example", "bob"]),
            (MAIL, &["-C", "no field", "bob"]),
            (OWN, &["-S", "a b=c", "bob"]),
            (OWN, &["-S", "X\nBcc=evil@x", "bob"]),
            (OWN, &["-S", "Resent-To=a@b", "bob"]),
            (OWN, &["-t"]),
            (OWN, &["-q", "x", "bob"]),
        ] {
            assert!(order(program, line).is_err(), "{program} {line:?}");
        }
        assert_eq!(order(MAIL, &["-s", "-a", "--", "-odd@x"]).unwrap().to, ["-odd@x"]);
    }
}
