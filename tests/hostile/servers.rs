//! Servers that are broken or mean: what they do, where in the dialogue, and what must come of it.

use crate::attack::{Attack, Figures, MODES, Mode, Verdict, WAYS, Way, call, inside, on, run_all};
use crate::harm::PASSWORD;
use crate::measure;
use crate::scram::{self, Lie};
use crate::support::certificates::Shown;
use crate::support::relay::{Act, CONTENT, DOT, GREETING, HANDSHAKE, INSIDE, Relay, Script, Segments};
use crate::support::sendmail::Sendmail;
use Verdict::{AsAnswered, Bounced, Deferred, Doubtful, Relayed};
use std::time::Duration;

/// What a terminal would do things with, what is no UTF-8, and what ends a C string.
const DIRTY: &[u8] = b"\x1b[2J\x1b]0;owned\x07\x08\xff\xc3 \x00 \xc2\x9b31m \xe2\x80\xae bad";

/// Where in the dialogue, and the code that is expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Greeting,
    Ehlo,
    StartTls,
    EhloInside,
    Auth,
    Mail,
    Rcpt,
    Data,
    Dot,
    Quit,
}

impl Place {
    fn code(self) -> u16 {
        match self {
            Self::Greeting | Self::StartTls => 220,
            Self::Auth => 235,
            Self::Data => 354,
            Self::Quit => 221,
            Self::Ehlo | Self::EhloInside | Self::Mail | Self::Rcpt | Self::Dot => 250,
        }
    }

    fn moment(self) -> String {
        match self {
            Self::Greeting => GREETING.to_owned(),
            Self::EhloInside => format!("{INSIDE}EHLO"),
            Self::Dot => DOT.to_owned(),
            _ => format!("{self:?}"),
        }
    }

    /// Those that only this way comes to.
    fn on(way: Way) -> &'static [Self] {
        use Place::{Auth, Data, Dot, Ehlo, EhloInside, Greeting, Mail, Quit, Rcpt, StartTls};
        match way {
            Way::Plain | Way::Implicit => &[Greeting, Ehlo, Mail, Rcpt, Data, Dot, Quit],
            Way::Upgraded => &[Greeting, Ehlo, StartTls, EhloInside, Mail, Rcpt, Data, Dot, Quit],
            Way::LoggedIn => &[Auth, Mail, Rcpt, Data, Dot, Quit],
        }
    }

    /// The verdict on a server that loses its way, or its connection, here.
    fn lost(self, status: i32) -> Verdict {
        match self {
            Self::Dot => Doubtful(status),
            Self::Quit => Relayed,
            _ => Deferred(status),
        }
    }

    /// The verdict on a refusal for good.
    fn refused(self, way: Way) -> Verdict {
        match self {
            // There is HELO where nothing hangs on EHLO.
            Self::Ehlo if matches!(way, Way::Plain | Way::Implicit) => Relayed,
            Self::EhloInside if way == Way::Upgraded => Deferred(69),
            Self::Greeting | Self::Ehlo | Self::EhloInside | Self::StartTls => Deferred(69),
            Self::Auth => Deferred(77),
            Self::Mail | Self::Data | Self::Dot => Bounced(65),
            Self::Rcpt => Bounced(67),
            Self::Quit => Relayed,
        }
    }
}

/// What can be done at any moment.
fn anywhere(way: Way, place: Place) -> Vec<Attack> {
    let (code, moment) = (place.code(), place.moment());
    let at =
        |name: &str, act: Act, verdict| Attack::new(format!("{name} {place:?}"), way, on(way, &moment, act), verdict);
    let raw = |text: &[u8]| Act::Raw(text.to_vec());
    let dirty = |code: u16| [format!("{code} ").as_bytes(), DIRTY, b"\r\n"].concat();
    let line = [format!("{code} ").into_bytes(), vec![b'x'; 65536]].concat();
    let answers = format!("{code} ok\r\n").repeat(1000).into_bytes();
    // Answers to spare are taken where the dialogue ends.
    let spare = match place {
        Place::Dot | Place::Quit => Relayed,
        // No extension is among them, so STARTTLS is not.
        Place::Ehlo if way == Way::Upgraded => Deferred(69),
        _ => Deferred(76),
    };
    let is_answer = |code: u16| match place {
        Place::Mail | Place::Rcpt | Place::Dot => code / 100 == 2,
        Place::Quit => true,
        _ => code == place.code(),
    };
    let mut rows = vec![
        at("an endless line at", Act::Flood(line), place.lost(76)),
        at("an endless reply at", Act::Flood(format!("{code}-on and on\r\n").into_bytes()), place.lost(76)),
        at("a flood of replies at", Act::Flood(answers), spare),
        at("two codes in one reply at", raw(format!("{code}-a\r\n550 b\r\n").as_bytes()), place.lost(76)),
        at("no reply at", raw(b"HTTP/1.1 400 Bad Request\r\n"), place.lost(76)),
        at("nothing but a line end at", raw(b"\r\n"), place.lost(76)),
        at("a code out of range at", raw(b"999 ok\r\n"), place.lost(76)),
        at("a NUL for a code at", raw(b"\0\0\0 ok\r\n"), place.lost(76)),
        at(
            "going down at",
            Act::from("421 4.3.2 going down"),
            if place == Place::Quit { Relayed } else { Deferred(75) },
        ),
        at("later at", Act::from("451 4.7.1 later"), if place == Place::Quit { Relayed } else { Deferred(75) }),
        at("a dirty no at", raw(&dirty(550)), place.refused(way)),
        at("a password in a no at", Act::Say(format!("550 {PASSWORD}")), place.refused(way)),
        at("hanging up at", Act::Drop, place.lost(75)),
        at("a reset at", Act::Reset, place.lost(75)),
        at("half a reply at", Act::SayAndDrop(format!("{code}-half")), place.lost(75)),
    ];
    // It would show nobody a password that nobody has told it.
    if way != Way::LoggedIn || place == Place::Auth {
        rows.retain(|row| !row.name.starts_with("a password") || way == Way::LoggedIn);
    }
    if !matches!(place, Place::Ehlo | Place::EhloInside) {
        // EHLO's answer is more than its code.
        rows.push(at("a dirty yes at", raw(&dirty(code)), Relayed));
        rows.push(at("a bare code at", raw(format!("{code}\r\n").as_bytes()), Relayed));
    }
    for wrong in [200, 220, 235, 251, 299, 334, 354, 399] {
        if !is_answer(wrong) && (place, wrong) != (Place::Auth, 334) {
            rows.push(at(&format!("{wrong} at"), Act::Say(format!("{wrong} out of place")), place.lost(76)));
        }
    }
    for (name, act) in
        [("silence at", Act::Stall), ("dripping at", Act::Drip(format!("{code}-{}", "drip ".repeat(800)), TICK))]
    {
        rows.push(at(name, act, place.lost(75)).account(SHORT));
    }
    rows
}

/// How fast it drips, and a limit that even a loaded machine keeps in every wait but that one.
const TICK: Duration = Duration::from_millis(25);
const SHORT: &str = "timeout = \"4s\"";

/// Around the content.
fn content(way: Way) -> Vec<Attack> {
    const LARGE: usize = 8 << 20;
    let no = || way.script().on("RCPT", "550 5.1.1 nobody").on("DATA", "354 go on");
    let attack = |name: &str, script: Script, verdict| Attack::new(name, way, script, verdict);
    vec![
        attack("354 when nobody is left", no(), Bounced(67)),
        attack("354 when nobody is left, and then 250", no().on(DOT, "250 taken"), Bounced(67)),
        attack("354 when nobody is left, and then nothing", no().on(DOT, Act::Drop), Bounced(67)),
        attack(
            "354 when the sender was refused",
            way.script().on("MAIL", "550 5.7.1 no").on("RCPT", "503 no").on("DATA", "354 go"),
            Bounced(65),
        ),
        attack("hanging up in the content", on(way, CONTENT, Act::DropAfter(1 << 20)), Deferred(75)).octets(LARGE),
        attack("a reset in the content", on(way, CONTENT, Act::Reset), Deferred(75)).octets(LARGE),
        attack("not listening to the content", on(way, CONTENT, Act::Deaf), Deferred(75)).octets(LARGE).account(SHORT),
        attack("a no in the content", on(way, CONTENT, "552 5.3.4 enough"), Bounced(65)).octets(LARGE),
        attack("a yes in the content", on(way, CONTENT, "250 2.0.0 taken"), Deferred(76)).octets(LARGE),
        attack(
            "a yes before the content",
            on(way, "DATA", Act::Raw(b"354 go\r\n250 taken\r\n".to_vec())),
            Deferred(76),
        ),
        attack("an answer to spare after RCPT", on(way, "RCPT", "250 ok\n250 ok"), Deferred(76)),
        attack("an answer to spare after MAIL", on(way, "MAIL", "250 ok\n250 ok"), Deferred(76)),
        attack("two answers to the dot", on(way, DOT, "250 taken\n250 taken"), Relayed),
        attack("a yes and a no to the dot", on(way, DOT, "250 taken\n554 no"), Relayed),
        attack("a yes behind the end", on(way, DOT, Act::Behind(b"250 taken\r\n".to_vec())), Doubtful(75)),
        attack("a yes behind a 421", on(way, DOT, Act::Raw(b"421 closing\r\n250 taken\r\n".to_vec())), Deferred(75)),
        attack(
            "a greeting and a no at once",
            on(way, GREETING, Act::Raw(b"220 hi\r\n554 no\r\n".to_vec())),
            Deferred(76),
        ),
    ]
}

/// BDAT.
fn chunks(way: Way) -> Vec<Attack> {
    let offers = ["PIPELINING", "CHUNKING", "SIZE", "8BITMIME"];
    let attack = |name: &str, act: Option<Act>, verdict| {
        let script = way.script().offering(&offers);
        let script = act.into_iter().fold(script, |script, act| script.on("BDAT", act));
        Attack::new(format!("BDAT: {name}"), way, script, verdict)
    };
    let say = |text: &str| Some(Act::from(text));
    vec![
        attack("well", None, Relayed),
        attack("unknown after all", say("500 5.5.1 what?"), Relayed),
        attack("not implemented after all", say("502 5.5.1 what?"), Relayed),
        attack("later", say("452 4.3.1 full"), Deferred(75)),
        attack("no", say("554 5.6.0 no"), Bounced(65)),
        attack("going down", say("421 4.3.2 going down"), Deferred(75)),
        attack("go on", say("354 go on"), Doubtful(76)),
        attack("hanging up", Some(Act::Drop), Doubtful(75)),
        attack("silence", Some(Act::Stall), Doubtful(75)).account(SHORT),
        attack("two codes", say("250-taken\n554 no"), Doubtful(76)),
        attack("an endless reply", Some(Act::Flood(b"250-on and on\r\n".to_vec())), Doubtful(76)),
        attack("an answer to spare", say("250 taken\n250 taken"), Doubtful(76)),
        Attack::new(
            "BDAT: hanging up half-way",
            way,
            on(way, CONTENT, Act::DropAfter(4000)).offering(&offers),
            Deferred(75),
        )
        .octets(200_000),
        Attack::new(
            "BDAT: offered in clear alone",
            way,
            match way {
                Way::Plain | Way::Implicit => way.script(),
                _ => way
                    .script()
                    .on("EHLO", "250-relay.example\n250-CHUNKING\n250 STARTTLS")
                    .on(&inside("EHLO"), "250-relay.example\n250 AUTH PLAIN")
                    .on("BDAT", Act::Drop),
            },
            Relayed,
        ),
    ]
}

/// TLS that is none, or that goes wrong.
fn tls(way: Way) -> Vec<Attack> {
    let record = |kind: u8, octets: &[u8]| {
        [&[kind, 3, 3], &u16::try_from(octets.len()).unwrap().to_be_bytes()[..], octets].concat()
    };
    let noise: Vec<u8> = (0..5000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let shake = |name: &str, act: Act, verdict| {
        Attack::new(format!("handshake: {name}"), way, on(way, HANDSHAKE, act), verdict).without_password()
    };
    let flood = |octets: Vec<u8>| Act::Flood(octets.repeat(1000));
    let mut rows = vec![
        shake("silence", Act::Stall, Deferred(75)).account(SHORT),
        shake("hanging up", Act::Drop, Deferred(75)),
        shake("a reset", Act::Reset, Deferred(75)),
        shake("SMTP", Act::from("250 hello"), Deferred(69)),
        shake("noise", Act::Raw(noise.clone()), Deferred(69)),
        shake(
            "a record without end",
            Act::Flood([vec![0x16, 3, 3, 0xff, 0xff], vec![0; 60_000]].concat()),
            Deferred(69),
        ),
        shake("a message without end", Act::Flood(record(0x16, &[2, 0xff, 0xff, 0xff, 0, 0, 0, 0])), Deferred(69)),
        shake("empty records", flood(record(0x16, b"")), Deferred(69)),
        shake("warnings", flood(record(0x15, &[1, 90])), Deferred(69)),
        shake("changes of cipher", flood(record(0x14, &[1])), Deferred(69)),
        shake("an alert", Act::Raw(record(0x15, &[2, 40])), Deferred(69)),
        // Behind it the greeting comes in clear, where one is due.
        shake("an end", Act::Raw(record(0x15, &[1, 0])), Deferred(if way == Way::Implicit { 69 } else { 75 }))
            .account(SHORT),
        shake("dripping", Act::Drip("\u{16}\u{3}\u{3}\u{f}".to_owned() + &"\0".repeat(800), TICK), Deferred(75))
            .account(SHORT),
        Attack::new("100 tickets", way, way.script().tickets(100), Relayed),
        Attack::new("10,000 tickets", way, way.script().tickets(10_000), Deferred(75)),
        Attack::new("ten new keys", way, on(way, &inside("MAIL"), Act::Rekey(10, "250 ok".to_owned())), Relayed),
        Attack::new(
            "10,000 new keys",
            way,
            on(way, &inside("MAIL"), Act::Rekey(10_000, "250 ok".to_owned())),
            Deferred(75),
        ),
    ];
    for shown in [
        Shown::Expired,
        Shown::NotYetValid,
        Shown::OtherName,
        Shown::SelfSigned,
        Shown::OtherAuthority,
        Shown::NewAuthority,
    ] {
        let script = way.script().showing(shown);
        rows.push(Attack::new(format!("certificate: {shown:?}"), way, script, Deferred(69)).without_password());
    }
    for (name, octets) in [
        ("plain text", b"250 2.0.0 taken\r\n".to_vec()),
        ("noise", noise),
        ("an alert in clear", record(0x15, &[2, 40])),
        ("an end in clear", record(0x15, &[1, 0])),
        ("a new handshake", record(0x16, &[0, 0, 0, 0])),
        ("a forged record", record(0x17, &[0; 64])),
        ("a record too long", [vec![0x17, 3, 3, 0xff, 0xff], vec![0; 70_000]].concat()),
    ] {
        for place in [Place::Ehlo, Place::Mail, Place::Dot] {
            let script = on(way, &inside(&place.moment()), Act::Beneath(octets.clone()));
            rows.push(Attack::new(format!("beneath TLS at {place:?}: {name}"), way, script, place.lost(75)));
        }
    }
    rows
}

/// What is said about STARTTLS, and with it.
fn starttls(way: Way) -> Vec<Attack> {
    let attack = |name: &str, script: Script, verdict| Attack::new(name, way, script, verdict).without_password();
    let injected = |text: &str| on(way, "STARTTLS", Act::Raw(text.as_bytes().to_vec()));
    vec![
        attack(
            "STARTTLS taken away",
            on(way, "EHLO", "250-relay.example\n250-AUTH PLAIN LOGIN\n250 SIZE"),
            Deferred(69),
        ),
        attack("EHLO taken away", on(way, "EHLO", "502 5.5.1 what?"), Deferred(69)),
        attack("STARTTLS refused", on(way, "STARTTLS", "502 5.5.1 what?"), Deferred(69)),
        attack("STARTTLS put off", on(way, "STARTTLS", "454 4.7.0 not now"), Deferred(75)),
        attack("STARTTLS injection", injected("220 go\r\n250 injected\r\n"), Deferred(76)),
        attack(
            "STARTTLS injection of capabilities",
            injected("220 go\r\n250-relay.example\r\n250 AUTH PLAIN\r\n"),
            Deferred(76),
        ),
        attack("STARTTLS injection, half a line", injected("220 go\r\n2"), Deferred(76)),
        attack("STARTTLS injection, a second one", injected("220 go\r\n220 go\r\n"), Deferred(76)),
    ]
}

/// AUTH.
fn auth() -> Vec<Attack> {
    let way = Way::LoggedIn;
    let plain = |name: &str, script: Script, verdict| Attack::new(format!("AUTH: {name}"), way, script, verdict);
    let offering = |mechanisms: &str| way.script().mechanisms(mechanisms);
    let first = BASE64_OF_PLAIN;
    vec![
        plain(
            "none any more inside TLS",
            offering("")
                .on("EHLO", "250-relay.example\n250-AUTH PLAIN\n250 STARTTLS")
                .on(&inside("EHLO"), "250 relay.example"),
            Deferred(69),
        )
        .without_password(),
        plain("mechanisms that nobody knows", offering("GSSAPI NTLM X-MARK"), Deferred(69)).without_password(),
        plain("a list with control characters", offering("\u{1b}[2J \0 \u{9b}"), Deferred(69)).without_password(),
        plain("only CRAM-MD5, and then nonsense", offering("CRAM-MD5").on("AUTH", "334 \u{1b}nonsense"), Deferred(76))
            .without_password(),
        plain("EXTERNAL where we have a password", offering("EXTERNAL"), Deferred(69)).without_password(),
        plain(
            "the password given back",
            on(way, "AUTH", Act::Say(format!("535 5.7.8 {PASSWORD} is wrong"))),
            Deferred(77),
        ),
        plain(
            "the response given back",
            on(way, "AUTH", Act::Say(format!("535 5.7.8 {first} is wrong"))),
            Deferred(77),
        ),
        plain(
            "the response given back with a 454",
            on(way, "AUTH", Act::Say(format!("454 4.7.0 {first}"))),
            Deferred(75),
        ),
        plain("the response as a challenge", on(way, "AUTH", Act::Say(format!("334 {first}"))), Deferred(76)),
        plain("challenges without end", on(way, "AUTH", Act::Converse(|_| "334 ".to_owned())), Deferred(76)),
        plain(
            "LOGIN asks for ever",
            offering("LOGIN").on("AUTH", Act::Converse(|_| "334 UGFzc3dvcmQ6".to_owned())),
            Deferred(76),
        ),
        plain(
            "the password in a greeting that turns us away",
            on(way, GREETING, Act::Say(format!("554-{PASSWORD}\n554 {first}"))),
            Deferred(69),
        )
        .without_password(),
        plain("the password in the greeting", on(way, GREETING, Act::Say(format!("220 {PASSWORD}"))), Relayed),
        plain(
            "the password among what is offered",
            on(way, "EHLO", Act::Say(format!("250-relay.example {PASSWORD}\n250-{first}\n250 STARTTLS")))
                .on(&inside("EHLO"), Act::Say(format!("250-{PASSWORD}\n250-{PASSWORD}\n250 AUTH PLAIN"))),
            Relayed,
        ),
        plain(
            "the password when STARTTLS is put off",
            on(way, "STARTTLS", Act::Say(format!("454 {PASSWORD}"))),
            Deferred(75),
        )
        .without_password(),
        plain("530 at MAIL", on(way, "MAIL", "530 5.7.0 log in first"), Deferred(69)),
        plain(
            "the password in the refusal of a recipient",
            on(way, "RCPT", Act::Say(format!("550 5.1.1 {PASSWORD} {first}"))),
            Bounced(67),
        ),
        plain(
            "the password in the refusal of the letter",
            on(way, DOT, Act::Say(format!("554 5.6.0 {PASSWORD}\n554 {first}"))),
            Bounced(65),
        ),
        plain(
            "the password where there is no reply",
            on(way, "MAIL", Act::Raw(format!("{PASSWORD}\r\n").into_bytes())),
            Deferred(76),
        ),
    ]
}

/// SCRAM.
fn scram() -> Vec<Attack> {
    let attack = |name: &str, says: Answer, verdict| {
        let script = Way::LoggedIn.script().mechanisms("SCRAM-SHA-256").on("AUTH", Act::Converse(says));
        Attack::new(format!("SCRAM: {name}"), Way::LoggedIn, script, verdict).without_password()
    };
    let lies: [(&str, Answer, Verdict); 20] = [
        ("the truth", |heard| scram::says(heard, Lie::None), Relayed),
        ("a nonce of its own", |heard| scram::says(heard, Lie::OtherNonce), Deferred(76)),
        ("no nonce of its own", |heard| scram::says(heard, Lie::BareNonce), Deferred(76)),
        ("4294967295 iterations", |heard| scram::says(heard, Lie::Iterations("4294967295")), Deferred(69)),
        ("more iterations than fit", |heard| scram::says(heard, Lie::Iterations("99999999999999999999")), Deferred(69)),
        ("no iteration", |heard| scram::says(heard, Lie::Iterations("0")), Deferred(69)),
        ("one iteration", |heard| scram::says(heard, Lie::Iterations("1")), Deferred(69)),
        ("iterations that are no number", |heard| scram::says(heard, Lie::Iterations("-1")), Deferred(76)),
        ("a salt of 2,900 octets", |heard| scram::says(heard, Lie::Salt(2000)), Relayed),
        ("a salt of a megabyte", |heard| scram::says(heard, Lie::Salt(1 << 20)), Deferred(76)),
        ("a salt that is none", |heard| scram::says(heard, Lie::BadSalt), Deferred(76)),
        ("an extension", |heard| scram::says(heard, Lie::Extension), Deferred(76)),
        ("a wrong signature", |heard| scram::says(heard, Lie::BadSignature), Deferred(76)),
        ("our own proof", |heard| scram::says(heard, Lie::Mirror), Deferred(76)),
        ("no signature", |heard| scram::says(heard, Lie::NoSignature), Deferred(76)),
        ("success at once", |heard| scram::says(heard, Lie::AtOnce), Deferred(76)),
        ("an error that plays with the terminal", |heard| scram::says(heard, Lie::Error), Deferred(77)),
        ("challenges without end", |heard| scram::says(heard, Lie::Endless), Deferred(76)),
        ("garbage", |heard| scram::says(heard, Lie::Garbage), Deferred(76)),
        ("nothing", |heard| scram::says(heard, Lie::Empty), Deferred(76)),
    ];
    lies.into_iter().map(|(name, says, verdict)| attack(name, says, verdict)).collect()
}

/// What a server says to what it has heard.
type Answer = fn(&[String]) -> String;

/// `\0alice\0` and the password.
const BASE64_OF_PLAIN: &str = "AGFsaWNlAG1BcmtlZC01ZWNyZXQ=";

/// The whole table.
pub fn table() -> Vec<Attack> {
    let mut rows = Vec::new();
    for way in WAYS {
        for &place in Place::on(way) {
            rows.extend(anywhere(way, place));
        }
        rows.extend(content(way));
        rows.extend(chunks(way));
        if way != Way::Plain {
            rows.extend(tls(way));
        }
        if matches!(way, Way::Upgraded | Way::LoggedIn) {
            rows.extend(starttls(way));
        }
    }
    rows.extend(auth());
    rows.extend(scram());
    rows
}

/// A connection that is cut at so many octets, from either side.
fn cuts(way: Way, octets: impl Iterator<Item = usize> + Clone) -> Vec<Attack> {
    let script = || way.script().segments(Segments::Replies);
    let said = octets.clone().map(|cut| (format!("cut after {cut} octets said"), script().mute_after(cut)));
    let heard = octets.map(|cut| (format!("cut after {cut} octets heard"), script().deaf_after(cut)));
    said.chain(heard).map(|(name, script)| Attack::new(name, way, script, AsAnswered)).collect()
}

/// Rows for a test that has to end soon: each in one of the modes, by turns, starting with another one each.
fn by_turns(rows: Vec<Attack>) -> Vec<(Attack, Mode)> {
    rows.into_iter().enumerate().map(|(i, row)| (row, MODES[(i + i / 7) % 3])).collect()
}

fn in_all_modes(rows: &[Attack]) -> Vec<(Attack, Mode)> {
    rows.iter().flat_map(|row| MODES.map(|mode| (row.clone(), mode))).collect()
}

#[test]
fn no_server_makes_us_hang_swell_blab_or_lose_a_letter() {
    run_all(&by_turns(table()), 12).judge("hostile servers");
}

/// All that a reply may have, for each of a thousand recipients.
#[test]
fn what_is_said_of_many_recipients_swells_nobody() {
    let recipients: Vec<String> = (0..1000).map(|number| format!("u{number}@example.org")).collect();
    let words: Vec<&str> =
        ["-f", "alice@example.com", "--"].into_iter().chain(recipients.iter().map(|s| &**s)).collect();
    let long = |code: u16| format!("{code}-{}\n", "x".repeat(500)).repeat(120) + &format!("{code} end");
    for (moment, code, status) in
        [("RCPT", 550, 67), ("RCPT", 451, 75), ("MAIL", 550, 65), (DOT, 250, 0), (GREETING, 554, 69)]
    {
        for mode in [Mode::Off, Mode::Run] {
            let name = format!("{code} at {moment}, {mode:?}");
            let relay = Relay::start(Script::open().on(moment, Act::Say(long(code))));
            let home = Sendmail::to(&relay);
            home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", if mode == Mode::Off { "off" } else { "" });
            let letter = b"Subject: x\n\nhello\n";
            let ended = if mode == Mode::Off {
                call(&home, &words, letter)
            } else {
                let queued = call(&home, &[&["-odq"], &words[..]].concat(), letter);
                assert_eq!(queued.status, Some(0), "{name}: {queued:?}");
                call(&home, &["-qf"], b"")
            };
            drop(relay.finish());
            println!("{:6} KiB: {name}", ended.peak);
            assert_eq!(ended.status, Some(if mode == Mode::Off { status } else { 0 }), "{name}");
            assert!(ended.peak <= measure::bound(), "{name}: {} KiB", ended.peak);
        }
    }
}

#[test]
fn a_connection_cut_anywhere_loses_and_doubles_nothing() {
    let mut rows = cuts(Way::Plain, (0..420).step_by(7));
    rows.extend(cuts(Way::Implicit, (0..2200).step_by(97)));
    rows.extend(cuts(Way::LoggedIn, (0..2600).step_by(101)));
    run_all(&by_turns(rows), 8).judge("cuts");
}

#[test]
#[ignore = "takes a quarter of an hour, and prints its figures"]
fn every_server_in_every_mode() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let rows: Vec<Attack> =
        table().into_iter().filter(|row| format!("{:?} {}", row.way, row.name).contains(&only)).collect();
    run_all(&in_all_modes(&rows), 16).judge("hostile servers, in every mode");
}

#[test]
#[ignore = "takes a while, and prints its figures"]
fn a_connection_cut_at_every_octet() {
    let mut all = Figures::default();
    for (way, octets) in [(Way::Plain, 420), (Way::Upgraded, 2400), (Way::Implicit, 2200), (Way::LoggedIn, 2600)] {
        let rows: Vec<_> = cuts(way, 0..octets).into_iter().map(|row| (row, Mode::Waiting)).collect();
        let figures = run_all(&rows, 8);
        all.rows += figures.rows;
        all.peak = all.peak.max(figures.peak);
        all.complaints.extend(figures.complaints);
    }
    all.judge("cuts at every octet");
}
