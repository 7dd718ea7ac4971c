//! Address lists: what is read, written and read again is the same; nothing that is read ends a line or a command.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::envelope::Mailbox;
use pillarbox::message::address::{Address, parse_list, parse_sender};
use pillarbox_fuzz::is_harmless;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse_list(text) {
        Ok(list) => {
            assert!(list.len() <= text.len(), "there are no more addresses than octets");
            let mailboxes: Vec<Mailbox> = list.iter().filter_map(|one| one.to_mailbox("d.example").ok()).collect();
            mailboxes.iter().for_each(reads_as_itself);
            list.iter()
                .filter_map(|one| one.display.as_deref())
                .for_each(|name| assert!(is_harmless(&name.replace('\t', " ")), "{name:?}"));
            let joined = mailboxes.iter().map(Mailbox::to_string).collect::<Vec<_>>().join(", ");
            let again: Vec<_> =
                parse_list(&joined).unwrap().iter().map(|one| one.to_mailbox("other").unwrap()).collect();
            assert_eq!(again, mailboxes, "{joined}");
        }
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.column), "{error}");
            assert!(is_harmless(&error.to_string()), "{error}");
        }
    }
    if let Ok(Some(sender)) = parse_sender(text) {
        let _: Option<Address> =
            parse_sender(&sender.to_mailbox("d.example").map_or(String::new(), |m| m.to_string())).unwrap();
    }
});

/// In the words of a command.
fn reads_as_itself(mailbox: &Mailbox) {
    let wire = mailbox.to_string();
    assert!(is_harmless(&wire), "{wire:?}");
    for written in [wire.clone(), format!("<{wire}>")] {
        let again = parse_list(&written).unwrap();
        assert_eq!(again.len(), 1, "{written}");
        assert_eq!(again[0].to_mailbox("other").as_ref(), Ok(mailbox), "{written}");
    }
}
