//! A client's line as a command, or the answer that says what is wrong with it.
//!
//! Pure. Generous where it does no harm (case, a space behind the colon, no angle brackets, a source route, a name
//! without a domain), strict where it might: a control character, a parameter that is not known or comes twice, an
//! address with anything behind it. RFC 5321 §4.1, RFC 3461 §4 (DSN), RFC 1870, RFC 3030, RFC 6152, RFC 6531.

use super::Answer;
use crate::envelope::{Mailbox, Notify, Recipient, Ret, ReversePath};
use crate::message::address::parse_sender;
use crate::smtp::plan::XGATEWAY;
use zeroize::Zeroizing;

/// What a client wants.
#[derive(Debug)]
pub(super) enum Command {
    Helo(String),
    Ehlo(String),
    StartTls,
    /// Mechanism and initial response.
    Auth(String, Option<Zeroizing<String>>),
    Mail(Box<Mail>),
    Rcpt(Box<Recipient>),
    Data,
    Bdat(Chunk),
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
    /// A verb that is nobody's but, perhaps, the postmaster's (in capitals, the first an X), and what stands behind it.
    Foreign(String, String),
}

/// The announcement of a piece of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub size: u64,
    pub last: bool,
}

/// What came with MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// The envelope sender.
    pub reverse_path: ReversePath,
    /// SIZE: the letter will have about this many octets.
    pub size: Option<u64>,
    /// BODY=8BITMIME
    pub eight_bit: bool,
    /// SMTPUTF8
    pub utf8: bool,
    /// RET
    pub ret: Option<Ret>,
    /// ENVID, decoded.
    pub envid: Option<String>,
    /// XGATEWAY: the header is not to be completed.
    pub gateway: bool,
}

/// Why a line is no command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// The client is told and may go on.
    Line(Answer),
    /// What follows cannot be told from a letter, or the client speaks something else: the session ends.
    Hopeless(Answer),
}

impl From<Answer> for Bad {
    fn from(answer: Answer) -> Self {
        Self::Line(answer)
    }
}

/// The longest ORCPT (RFC 3461 §4.2): each recipient keeps one, and every relay is to take it.
const MAX_ORCPT: usize = 500;

/// What browsers say when they are made to talk to us (cross-protocol scripting).
const OF_OTHER_PROTOCOLS: [&str; 7] = ["GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE"];

/// Reads a line, without its line end. `domain` completes names that have none.
pub(super) fn parse(line: &[u8], domain: &str) -> Result<Command, Bad> {
    let text = std::str::from_utf8(line).map_err(|_| Answer::new(500, (5, 2), "this line is not UTF-8"))?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Answer::new(500, (5, 2), "a control character is in this line").into());
    }
    let text = text.trim_matches([' ', '\t']);
    let (verb, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    let rest = rest.trim_start_matches([' ', '\t']);
    Ok(match verb.to_ascii_uppercase().as_str() {
        "HELO" => Command::Helo(client_name(rest)?),
        "EHLO" => Command::Ehlo(client_name(rest)?),
        "STARTTLS" => alone(rest, Command::StartTls)?,
        "AUTH" => auth(rest)?,
        "MAIL" => Command::Mail(Box::new(mail(rest, domain)?)),
        "RCPT" => Command::Rcpt(Box::new(rcpt(rest, domain)?)),
        "DATA" => alone(rest, Command::Data)?,
        "BDAT" => Command::Bdat(chunk(rest).ok_or_else(|| Bad::Hopeless(syntax("BDAT <octets> [LAST]")))?),
        "RSET" => Command::Rset,
        "NOOP" => Command::Noop,
        "VRFY" => Command::Vrfy,
        "EXPN" => Command::Expn,
        "HELP" => Command::Help,
        "QUIT" => Command::Quit,
        other if OF_OTHER_PROTOCOLS.contains(&other) => {
            return Err(Bad::Hopeless(Answer::new(421, (7, 0), "this is a mail server")));
        }
        foreign if foreign.starts_with('X') => Command::Foreign(foreign.to_owned(), rest.to_owned()),
        _ => return Err(no_such_command().into()),
    })
}

pub(super) fn no_such_command() -> Answer {
    Answer::new(500, (5, 1), "there is no such command; try HELP")
}

fn syntax(form: &str) -> Answer {
    Answer::new(501, (5, 4), format!("the form is: {form}"))
}

fn alone(rest: &str, command: Command) -> Result<Command, Answer> {
    if rest.is_empty() { Ok(command) } else { Err(Answer::new(501, (5, 4), "nothing may follow this command")) }
}

fn client_name(rest: &str) -> Result<String, Answer> {
    let name = rest.split([' ', '\t']).next().unwrap_or_default();
    if name.is_empty() || name.len() > 255 { Err(syntax("EHLO <your host's name>")) } else { Ok(name.to_owned()) }
}

fn auth(rest: &str) -> Result<Command, Answer> {
    let mut words = rest.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => {
            // `=` is an initial response of no octets (RFC 4954 §4).
            let initial = initial.map(|text| Zeroizing::new(if text == "=" { "" } else { text }.to_owned()));
            Ok(Command::Auth(mechanism.to_ascii_uppercase(), initial))
        }
        _ => Err(syntax("AUTH <mechanism> [<initial response>]")),
    }
}

fn chunk(rest: &str) -> Option<Chunk> {
    let mut words = rest.split_ascii_whitespace();
    let size = digits(words.next()?)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some(Chunk { size, last })
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn mail(rest: &str, domain: &str) -> Result<Mail, Answer> {
    const FORM: &str = "MAIL FROM:<address> [parameters]";
    let (path, parameters) = path_and_parameters(rest, "FROM:").ok_or_else(|| syntax(FORM))?;
    let mut mail = Mail { reverse_path: ReversePath(mailbox(path, domain, 7)?), ..Mail::default() };
    for parameter in parameters {
        let Parameter { keyword, value, text } = &parameter;
        let bad = || parameter.bad();
        match (keyword.as_str(), *value) {
            ("SIZE", Some(value)) => mail.size = Some(digits(value).ok_or_else(bad)?),
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("8BITMIME") => mail.eight_bit = true,
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("7BIT") => {}
            ("SMTPUTF8", None) => mail.utf8 = true,
            (XGATEWAY, None) => mail.gateway = true,
            ("RET", Some(value)) => mail.ret = Some(Ret::parse(value).ok_or_else(bad)?),
            ("ENVID", Some(value)) => {
                let fits = |envid: &String| envid.len() <= 100 && envid.bytes().all(|o| matches!(o, b' '..=b'~'));
                mail.envid = Some(xtext(value).filter(fits).ok_or_else(bad)?);
            }
            // Who the letter's author has proved to be, somewhere else (RFC 4954 §5): we do not pass it on.
            ("AUTH", Some(value)) => drop(xtext(value).ok_or_else(bad)?),
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH" | XGATEWAY, _) => return Err(bad()),
            _ => return Err(unknown(text)),
        }
    }
    Ok(mail)
}

fn rcpt(rest: &str, domain: &str) -> Result<Recipient, Answer> {
    const FORM: &str = "RCPT TO:<address> [parameters]";
    let (path, parameters) = path_and_parameters(rest, "TO:").ok_or_else(|| syntax(FORM))?;
    let nobody = || Answer::new(553, (1, 3), "a recipient must have a name");
    let mut recipient = Recipient::new(mailbox(path, domain, 3)?.ok_or_else(nobody)?);
    for parameter in parameters {
        let Parameter { keyword, value, text } = &parameter;
        let bad = || parameter.bad();
        match (keyword.as_str(), *value) {
            ("NOTIFY", Some(value)) => recipient.notify = Some(Notify::parse(value).ok_or_else(bad)?),
            ("ORCPT", Some(value)) if value.len() <= MAX_ORCPT => {
                let fits = |orcpt: &String| orcpt.contains(';') && !orcpt.chars().any(char::is_control);
                recipient.orcpt = Some(xtext(value).filter(fits).ok_or_else(bad)?);
            }
            ("NOTIFY" | "ORCPT", _) => return Err(bad()),
            _ => return Err(unknown(text)),
        }
    }
    Ok(recipient)
}

fn unknown(text: &str) -> Answer {
    Answer::new(555, (5, 4), format!("the parameter {text} is not known here"))
}

/// One `KEYWORD=value` behind a path.
struct Parameter<'a> {
    keyword: String,
    value: Option<&'a str>,
    text: &'a str,
}

impl Parameter<'_> {
    fn bad(&self) -> Answer {
        Answer::new(501, (5, 4), format!("{} has no value that is known here", self.keyword))
    }
}

/// What stands between `FROM:` or `TO:` and the parameters, and these. `None` where the form is not kept, or a
/// keyword comes twice.
fn path_and_parameters<'a>(rest: &'a str, word: &str) -> Option<(&'a str, Vec<Parameter<'a>>)> {
    let (head, path) = rest.split_at_checked(word.len())?;
    if !head.eq_ignore_ascii_case(word) {
        return None;
    }
    let path = path.trim_start_matches([' ', '\t']);
    let end = path_end(path)?;
    let (path, rest) = path.split_at(end);
    if path.is_empty() || !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
        return None;
    }
    let mut parameters: Vec<Parameter<'a>> = Vec::new();
    for text in rest.split_ascii_whitespace() {
        let (keyword, value) = text.split_once('=').map_or((text, None), |(keyword, value)| (keyword, Some(value)));
        let keyword = keyword.to_ascii_uppercase();
        if parameters.iter().any(|earlier| earlier.keyword == keyword) {
            return None;
        }
        parameters.push(Parameter { keyword, value, text });
    }
    Some((path, parameters))
}

/// Where a path ends: behind the `>` that closes it, or before the first space where it has no angle brackets.
/// Neither counts inside quotes.
fn path_end(path: &str) -> Option<usize> {
    let angle = path.starts_with('<');
    let (mut quoted, mut escaped) = (false, false);
    for (i, c) in path.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if angle && !quoted => return Some(i + 1),
            ' ' | '\t' if !angle && !quoted => return Some(i),
            _ => {}
        }
    }
    (!angle && !quoted).then_some(path.len())
}

/// The address in a path; `None` for `<>`. `detail` is the third number of the status for one that is none.
fn mailbox(path: &str, domain: &str, detail: u16) -> Result<Option<Mailbox>, Answer> {
    let refuse = |why: String| Answer::new(501, (1, detail), format!("the address {path}: {why}"));
    let address = parse_sender(path).map_err(|error| refuse(error.to_string()))?;
    address.map(|address| address.to_mailbox(domain).map_err(|bad| refuse(bad.to_string()))).transpose()
}

/// Decodes xtext (RFC 3461 §4): `+` and two hexadecimal digits are an octet.
fn xtext(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => {
                let mut digit =
                    || rest.next().filter(|o| !o.is_ascii_lowercase()).and_then(|o| char::from(o).to_digit(16));
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            b'=' => return None,
            other => other,
        });
    }
    String::from_utf8(octets).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(line: &str) -> Result<Command, Bad> {
        parse(line.as_bytes(), "box.example")
    }

    fn refusal(line: &[u8]) -> String {
        let Err(Bad::Line(answer) | Bad::Hopeless(answer)) = parse(line, "box.example") else {
            panic!("{} is taken", line.escape_ascii())
        };
        let mut out = Vec::new();
        answer.write(true, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn sender(line: &str) -> Mail {
        match parsed(line) {
            Ok(Command::Mail(mail)) => *mail,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn recipient(line: &str) -> Recipient {
        match parsed(line) {
            Ok(Command::Rcpt(recipient)) => *recipient,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn senders_are_read_in_the_spellings_that_programs_use() {
        for (line, path) in [
            ("MAIL FROM:<a@x.org>", "a@x.org"),
            ("mail from: <a@x.org>", "a@x.org"),
            ("MAIL FROM:a@x.org SIZE=5", "a@x.org"),
            ("MAIL FROM:<>", ""),
            ("MAIL FROM:<> SIZE=3", ""),
            ("MAIL FROM:<root>", "root@box.example"),
            ("MAIL FROM:<@relay.example:a@x.org>", "a@x.org"),
            ("MAIL FROM:<\"a > b\"@x.org> SIZE=1", "\"a > b\"@x.org"),
            ("MAIL FROM:<\"a\\\"> \"@x.org>", "\"a\\\"> \"@x.org"),
            ("MAIL FROM:<jörg@x.org>", "jörg@x.org"),
            ("MAIL FROM:<a@[127.0.0.1]>", "a@[127.0.0.1]"),
        ] {
            assert_eq!(sender(line).reverse_path.to_string(), path, "{line}");
        }
    }

    #[test]
    fn parameters_are_read_and_decoded() {
        let mail =
            sender("MAIL FROM:<a@x.org> size=1000 BODY=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ+2B1+3D AUTH=<> XGATEWAY");
        let want = Mail {
            reverse_path: mail.reverse_path.clone(),
            size: Some(1000),
            eight_bit: true,
            utf8: true,
            ret: Some(Ret::Headers),
            envid: Some("QQ+1=".to_owned()),
            gateway: true,
        };
        assert_eq!(mail, want);
        let bob = recipient("RCPT TO:<bob@x.org> NOTIFY=success,FAILURE ORCPT=rfc822;Bob+40x.org");
        assert_eq!(bob.notify, Some(Notify::On { success: true, failure: true, delay: false }));
        assert_eq!(bob.orcpt.as_deref(), Some("rfc822;Bob@x.org"));
    }

    #[test]
    fn every_mistake_has_its_answer() {
        for (line, answer) in [
            ("FROB", "500 5.5.1"),
            ("", "500 5.5.1"),
            ("MAIL", "501 5.5.4"),
            ("MAIL FROM:", "501 5.5.4"),
            ("MAIL TO:<a@x.org>", "501 5.5.4"),
            ("MAIL FROM:<a@x.org", "501 5.5.4"),
            ("MAIL FROM:<a@x.org>x", "501 5.5.4"),
            ("MAIL FROM:<a@x.org> SIZE=1 SIZE=2", "501 5.5.4"),
            ("MAIL FROM:<a@x.org> SIZE=-1", "501 5.5.4"),
            ("MAIL FROM:<a@x.org> SIZE=99999999999999999999", "501 5.5.4"),
            ("MAIL FROM:<a@x.org> BODY=BINARYMIME", "501 5.5.4"),
            ("MAIL FROM:<a@x.org> RET=SOME", "501 5.5.4"),
            ("MAIL FROM:<a@x.org> ENVID=+0A", "501 5.5.4"),
            ("MAIL FROM:<a@x.org> ENVID=+4", "501 5.5.4"),
            ("MAIL FROM:<a@x.org> FROB=1", "555 5.5.4"),
            ("MAIL FROM:<a b@x.org>", "501 5.1.7"),
            ("MAIL FROM:<a@x_,y>", "501 5.1.7"),
            ("RCPT TO:<>", "553 5.1.3"),
            ("RCPT TO:<a@>", "501 5.1.3"),
            ("RCPT TO:<a@b>,<c@d>", "501 5.5.4"),
            ("RCPT TO:<a@x.org> NOTIFY=SOMETIMES", "501 5.5.4"),
            ("RCPT TO:<a@x.org> NOTIFY=NEVER,DELAY", "501 5.5.4"),
            ("RCPT TO:<a@x.org> ORCPT=nonsense", "501 5.5.4"),
            ("RCPT TO:<a@x.org> SIZE=1", "555 5.5.4"),
            ("DATA now", "501 5.5.4"),
            ("STARTTLS now", "501 5.5.4"),
            ("EHLO", "501 5.5.4"),
            ("AUTH", "501 5.5.4"),
            ("AUTH PLAIN a b", "501 5.5.4"),
            ("BDAT", "501 5.5.4"),
            ("BDAT x", "501 5.5.4"),
            ("BDAT +5", "501 5.5.4"),
            ("BDAT 5 FIRST", "501 5.5.4"),
            ("GET / HTTP/1.1", "421 4.7.0"),
            ("MAIL FROM:<a@x.org>\rRCPT TO:<b@x.org>", "500 5.5.2"),
        ] {
            let got = refusal(line.as_bytes());
            assert!(got.starts_with(answer), "{line}: {got}");
        }
        assert!(refusal(b"MAIL FROM:<\xff@x>").starts_with("500 5.5.2"));
        let orcpt = format!("RCPT TO:<a@x.org> ORCPT=rfc822;{}", "x".repeat(MAX_ORCPT - 7));
        assert!(recipient(&orcpt).orcpt.is_some() && refusal((orcpt + "x").as_bytes()).starts_with("501 5.5.4"));
        assert!(matches!(parsed("BDAT x"), Err(Bad::Hopeless(_))), "the chunk's octets would be taken for commands");
    }

    #[test]
    fn chunks_say_their_size_and_whether_they_are_the_last() {
        for (line, size, last) in [("BDAT 0", 0, false), ("bdat 86 last", 86, true), ("BDAT 0 LAST", 0, true)] {
            match parsed(line) {
                Ok(Command::Bdat(chunk)) => assert_eq!(chunk, Chunk { size, last }, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(
            verb in "(MAIL FROM:|RCPT TO:|BDAT |AUTH |EHLO |)", rest in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = parse(&[verb.as_bytes(), &rest].concat(), "box.example");
        }

        #[test]
        fn what_the_client_floor_writes_is_read_back(local in "[!-~]{1,12}", notify in 0_usize..3) {
            let Ok(mailbox) = Mailbox::new(&local, "x.org") else { return Ok(()) };
            let notify = [None, Some(Notify::Never), Notify::parse("failure,delay")][notify];
            let parameter = notify.map(|notify| format!(" NOTIFY={notify}")).unwrap_or_default();
            let read = recipient(&format!("RCPT TO:<{mailbox}>{parameter}"));
            prop_assert_eq!(read, Recipient { mailbox, notify, orcpt: None });
        }
    }
}
