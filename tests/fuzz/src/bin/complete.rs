//! Completion: what must be there is, what must not be seen is gone, and nothing else has changed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::envelope::Mailbox;
use pillarbox::message::LoneDot;
use pillarbox::message::complete::{Completion, How, complete};
use pillarbox::message::fields::{Field, Fields};
use pillarbox_fuzz::{Tape, is_canonical, message, octets};

const NEVER: [&str; 4] = ["Bcc", "Resent-Bcc", "Return-Path", "Content-Length"];
const OURS: [&str; 13] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Reply-To",
    "Date",
    "Message-ID",
    "Resent-Date",
];

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape(data);
    let flags = tape.octet();
    let how = [How::Full, How::Undisclosed, How::Gateway][usize::from(flags & 3) % 3];
    let full_name = tape.text();
    let Some(mut message) = message(tape.0, usize::MAX, LoneDot::IsText) else { return };
    let before = message.fields().clone();
    let author = Mailbox::new("alice", "box.example").unwrap();
    let bob = [Mailbox::new("bob", "x.example").unwrap(), Mailbox::new("\"q\\ x", "x.example").unwrap()];
    let with = Completion {
        date: "Sat, 28 Nov 2026 00:00:00 +0000",
        message_id: "id@box.example",
        author: &author,
        full_name: &|| full_name.clone(),
        rename: &|_, address| match address.domain.as_deref() {
            None => address.to_mailbox("box.example").ok().map(|mailbox| vec![mailbox]),
            Some("localhost") => Some(bob.to_vec()),
            Some(_) => None,
        },
        force_author: flags & 4 != 0,
        to: (flags & 8 != 0).then_some("undisclosed-recipients:;"),
        without: if flags & 16 != 0 { &["Date", "From"] } else { &[] },
        how,
    };
    complete(message.fields_mut(), &with);
    let fields = message.fields();
    assert!(!fields.iter().any(|field| NEVER.iter().any(|name| field.is(name))), "it must not be seen");
    assert!(is_canonical(&fields.to_octets()));
    assert_eq!(Fields::parse(&fields.to_octets()), *fields, "the header reads as itself: nothing was injected");
    let others = |fields: &Fields| {
        let is_other =
            |field: &&Field| !NEVER.iter().chain(&OURS).any(|name| field.is(name)) && !field.is("Resent-Message-ID");
        fields.iter().filter(is_other).cloned().collect::<Vec<Field>>()
    };
    assert_eq!(others(fields), others(&before), "what is nobody's business passes octet by octet");
    let resent = fields.iter().any(|field| field.name().to_ascii_lowercase().starts_with("resent-"));
    if how != How::Gateway && !resent && flags & 16 == 0 {
        for name in ["From", "Date", "Message-ID"] {
            assert!(fields.first(name).is_some(), "{name} is missing");
        }
    }
    let whole = octets(&message);
    assert_eq!(whole.len() as u64, message.size());
    // A To of ours goes to the end each time.
    if flags & 12 == 0 {
        let once = message.fields().clone();
        complete(message.fields_mut(), &with);
        assert_eq!(*message.fields(), once, "what is complete stays as it is");
    }
});
