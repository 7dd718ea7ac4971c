//! `pillarbox mail`, and `mail` and `mailx` by name: a text and
//! files become a letter, which goes the way of every other.
//!
//! What can be wrong about words, addresses and files is told before the text is read, and nothing is sent in halves:
//! the text is read to its end, the letter is composed ([`crate::compose`]) into the queue's spool, and only then
//! handed over, by the same hands as `sendmail`'s, with its exit contract. At a terminal a person is helped
//! ([`terminal`]); elsewhere success is quiet.

mod terminal;
pub mod words;

use super::configuration::{self, Configuration};
use super::exit::sysexits;
use super::host::{self, Host};
use super::input::Input;
use super::options::Usage;
use super::sendmail::{Face, conclude, drain, hand_over, prepare, reject, settle_in, spool, wishes};
use super::{log, say};
use crate::compose::{self, Attachment, Draft, Label, Text, addresses, compose, field, kind};
use crate::message::address::{parse_list, parse_sender};
use crate::message::encode::field_in_ascii;
use crate::message::fields::Field;
use crate::message::{LoneDot, Message, Unreadable};
use crate::outcome::words as system_words;
use crate::smtp::interrupt::Interrupt;
use crate::submit::{End, Why};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use terminal::{Bar, Shown, Typed, Watch, hint, is_typed};
use words::{MAIL, OWN, Order};

/// Whether a program of this name is a mailx.
pub fn is_mailx(program: &str) -> bool {
    matches!(program, "mail" | "mailx" | "Mail")
}

/// Runs `pillarbox mail`, or a mailx of that name. Returns the exit status.
pub fn main(program: &str, words: impl IntoIterator<Item = OsString>) -> u8 {
    settle_in();
    let name = if is_mailx(program) { MAIL } else { OWN };
    let face = Face { program: if name == MAIL { program } else { "pillarbox" } };
    let host = Host::look();
    let order = words::read(name, words).and_then(|mut order| {
        if order.help || order.version {
            return Ok(order);
        }
        order.settle(Path::exists)?;
        Ok(order)
    });
    match order {
        Err(usage) => wrong(face, &usage),
        Ok(order) if order.help => face.print(&words::help(name)),
        Ok(order) if order.version => face.print(&format!("Version {} (Pillarbox)\n", env!("CARGO_PKG_VERSION"))),
        Ok(order) => send(face, order, &host),
    }
}

/// The words are wrong.
fn wrong(face: Face<'_>, usage: &Usage) -> u8 {
    drain();
    face.say(&format!("{usage}; nothing was sent. Try --help"));
    sysexits::USAGE
}

/// Why there is no letter, and the status for it.
type No = (u8, String);

fn send(face: Face<'_>, mut order: Order, host: &Host) -> u8 {
    let interrupt = Interrupt::default();
    let typed = is_typed();
    let watch = Watch::start(interrupt.clone(), typed, order.ignore_interrupts);
    let loaded = configuration::or_service(host, order.delivery.config.as_deref(), &[]);
    log::install(loaded.as_ref().map_or(&[], |configuration| &configuration.settings.log), face.program);
    let configuration = match loaded {
        Ok(configuration) => configuration,
        Err(sentence) => {
            drain();
            return reject(face, &order.delivery, host, sysexits::CONFIG, &format!("{sentence}; nothing was sent"));
        }
    };
    settle_account(&mut order, &configuration);
    let opened = wishes(&order.delivery, configuration.service.is_some())
        .map_err(Refusal::Why)
        .and_then(|wishes| Ok((wishes, opened(&order).map_err(Refusal::No)?)));
    let (wishes, opened) = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            drain();
            return match refusal {
                Refusal::Why(why) => conclude(face, &order.delivery, host, &End::Refused(why)),
                Refusal::No((status, sentence)) => reject(face, &order.delivery, host, status, &sentence),
            };
        }
    };
    if typed {
        let asks = order.subject.is_none() && !order.has_header;
        order.subject = order.subject.take().or_else(|| asks.then(terminal::subject).flatten());
        hint("Write the letter; Ctrl-D or a line with a lone dot ends it.");
    }
    let bar = Bar::new(order.delivery.verbose);
    let composed = composed(&mut order, &configuration, opened, typed, &bar);
    watch.message_is_read();
    let message = match composed {
        Ok(Some(message)) => message,
        Ok(None) => return 0,
        Err(why) => {
            drain();
            let hint = match &why {
                Why::Message(Unreadable::Nul(_)) => "; attach what is no text with -a",
                _ => "",
            };
            let end = End::Refused(why);
            let End::Refused(why) = &end else { return 0 };
            let sentence = format!("{}{hint}", say::refusal(why));
            return reject(face, &order.delivery, host, super::exit::status(&end), &sentence);
        }
    };
    // Somebody who sees how far a letter has come waits for its end.
    order.delivery.is_watched = bar.is_for(message.size());
    let end = prepare(&configuration, host, wishes, message)
        .map_or_else(End::Refused, |letter| hand_over(&letter, &configuration, host, &order.delivery, interrupt));
    if order.delivery.is_watched {
        bar.clear();
    }
    conclude(face, &order.delivery, host, &end)
}

enum Refusal {
    Why(Why),
    No(No),
}

/// `-A` of a mailx: an account of that name, else a file, else an account that is not there, which is told.
fn settle_account(order: &mut Order, configuration: &Configuration) {
    let Some(name) = order.account_or_file.take() else { return };
    let is_account = configuration.settings.accounts.iter().any(|account| account.name == name);
    if !is_account && Path::new(&name).is_file() {
        order.files.push(name.into());
    } else {
        order.delivery.account = Some(name);
    }
}

/// The files of a letter, open: what cannot be read is told before anybody has typed a text for nothing.
struct Opened {
    files: Vec<Attachment>,
    html: Option<File>,
    beginning: Option<File>,
}

fn opened(order: &Order) -> Result<Opened, No> {
    Ok(Opened {
        files: order.files.iter().map(|path| attachment(path)).collect::<Result<_, _>>()?,
        html: order.html.as_deref().map(open).transpose()?,
        beginning: order.beginning.as_deref().map(open).transpose()?,
    })
}

fn open(path: &Path) -> Result<File, No> {
    let no = |error: io::Error| {
        let text = format!("{} cannot be read: {}", path.display(), system_words(&error));
        (sysexits::NOINPUT, format!("{}; nothing was sent", crate::outcome::printable(&text)))
    };
    // Looked at before it is opened, too: to open a device may do something.
    fs::metadata(path).and_then(|found| ends(&found)).map_err(no)?;
    let file = File::open(path).map_err(no)?;
    file.metadata().and_then(|found| ends(&found)).map_err(no)?;
    Ok(file)
}

/// Whether what is read there comes to an end: of a device it need not.
fn ends(found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    if kind.is_dir() {
        Err(io::ErrorKind::IsADirectory.into())
    } else if kind.is_file() || kind.is_fifo() {
        Ok(())
    } else {
        Err(io::Error::other("it is neither a file nor a pipe"))
    }
}

fn attachment(path: &Path) -> Result<Attachment, No> {
    let mut file = open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(kind::HEAD as u64).read_to_end(&mut head).map_err(|error| {
        let text = format!("{} cannot be read: {}", path.display(), system_words(&error));
        (sysexits::NOINPUT, format!("{}; nothing was sent", crate::outcome::printable(&text)))
    })?;
    let name = path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into_owned());
    let kind = kind::kind(&name, &head);
    Ok(Attachment { name, kind, content: Box::new(Cursor::new(head).chain(file)) })
}

/// Reads the text and composes the letter. `None`: there is no text, and then there is to be no letter.
fn composed(
    order: &mut Order,
    configuration: &Configuration,
    opened: Opened,
    typed: bool,
    bar: &Bar,
) -> Result<Option<Message>, Why> {
    let read = |input: &mut dyn Read, has_header: bool| {
        let store = Box::new(spool(configuration));
        let message = if has_header {
            Message::read(input, LoneDot::IsText, store)
        } else {
            Message::read_text(input, LoneDot::IsText, store)
        };
        message.map_err(Why::Message)
    };
    let input: Box<dyn Read> = if typed { Box::new(Typed::new()) } else { Box::new(Input) };
    let mut input: Box<dyn Read> = match opened.beginning {
        Some(file) => Box::new(file.chain(input)),
        None => input,
    };
    let written = read(&mut input, order.has_header)?;
    if order.skip_empty && written.body().is_empty() {
        return Ok(None);
    }
    if typed && written.body().is_empty() {
        hint("(the letter has no text)");
    }
    let own = own_fields(order, &written)?;
    let take = |name: &str, fields: &mut Vec<(String, String)>| {
        let at = fields.iter().position(|(other, _)| other.eq_ignore_ascii_case(name))?;
        Some(fields.remove(at).1)
    };
    let label = Label {
        kind: take("Content-Type", &mut order.fields),
        encoding: take("Content-Transfer-Encoding", &mut order.fields),
        charset: host::charset(),
    };
    let text = Text::new(&written, label).map_err(|error| Why::Message(Unreadable::Store(error)))?;
    let html = opened.html.map(|mut file| {
        let label = Label { kind: Some("text/html".to_owned()), ..Label::default() };
        let message = read(&mut file, false)?;
        Text::new(&message, label).map_err(|error| Why::Message(Unreadable::Store(error)))
    });
    let fields = header(order, own)?;
    let draft = Draft { fields, text, html: html.transpose()?, files: opened.files, unique: configuration::unique() };
    let store = Box::new(Shown(spool(configuration), bar.clone()));
    compose(draft, store).map(Some).map_err(Why::Message)
}

/// The fields that the text itself began with (`-t`); those that describe its body are the composition's to write.
fn own_fields(order: &mut Order, written: &Message) -> Result<Vec<Field>, Why> {
    let mut own = Vec::new();
    for known in written.fields().iter() {
        let name = known.name();
        if ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"].iter().any(|of_body| known.is(of_body)) {
            // What it says of a text that comes after it holds as an option would.
            order.field(name.to_owned(), known.text()).map_err(|usage| Why::BadField(usage.to_string()))?;
        } else if !(known.is("Subject") && order.subject.is_some()) {
            let in_ascii = if known.raw().is_ascii() { None } else { field_in_ascii(known) };
            own.push(in_ascii.unwrap_or_else(|| known.clone()));
        }
    }
    Ok(own)
}

/// The header, from the words and from what the text itself began with.
fn header(order: &Order, mut fields: Vec<Field>) -> Result<Vec<Field>, Why> {
    let list = |words: &[String]| {
        let mut list = Vec::new();
        for word in words {
            list.extend(parse_list(word).map_err(|error| Why::BadAddress(word.clone(), error))?);
        }
        Ok(list)
    };
    let is_there = |fields: &[Field], name: &str| fields.iter().any(|field| field.is(name));
    if let (Some(sender), false) = (&order.delivery.sender, is_there(&fields, "From")) {
        let sender = parse_sender(sender).map_err(|error| Why::BadAddress(sender.clone(), error))?;
        // Without a name, whoever completes the header knows what it is.
        if let Some(sender) = sender.filter(|sender| sender.display.is_some()) {
            fields.push(addresses("From", &[sender]));
        }
    }
    for (name, words) in [("To", &order.to), ("Cc", &order.cc)] {
        let found = list(words)?;
        if !found.is_empty() {
            fields.push(addresses(name, &found));
        }
    }
    if let Some(subject) = order.subject.as_deref().filter(|subject| !subject.trim().is_empty()) {
        fields.push(field("Subject", subject));
    }
    fields.extend(order.fields.iter().map(|(name, value)| compose::field(name, value)));
    Ok(fields)
}
