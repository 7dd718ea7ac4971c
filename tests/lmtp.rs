//! Letters into a real mail store: Dovecot's LMTP, which answers for each recipient on its own.
#![allow(clippy::unwrap_used)]

mod support;

use support::dovecot::Store;
use support::household::Household;
use support::letter::complete;
use support::server::{self, Server};

#[test]
fn a_letter_reaches_its_recipient_byte_for_byte() {
    let Some(store) = Store::start() else { return };
    server::a_letter_reaches_its_recipient_byte_for_byte(&store);
}

#[test]
fn a_unix_socket_carries_it_as_well() {
    let Some(store) = Store::start() else { return };
    let letter = complete("local", "First letter.\n.\n");
    Household::patient(&store.local_account()).send(&["-i", "bob@example.org"], &letter);
    assert_eq!(store.letter("bob@example.org").as_sent(), letter);
}

#[test]
fn twenty_megabytes_arrive_byte_for_byte() {
    let Some(store) = Store::start() else { return };
    server::twenty_megabytes_arrive_byte_for_byte(&store);
}

#[test]
fn eight_bits_arrive_as_they_were_written() {
    let Some(store) = Store::start() else { return };
    server::eight_bits_arrive_as_they_were_written(&store);
}

#[test]
fn fifty_recipients_get_one_letter_each() {
    let Some(store) = Store::start() else { return };
    server::fifty_recipients_get_one_letter_each(&store);
}

#[test]
fn one_refused_recipient_does_not_cost_the_others() {
    let Some(store) = Store::start() else { return };
    server::one_refused_recipient_does_not_cost_the_others(&store, "5.1.1", "User doesn't exist");
}

#[test]
fn when_every_recipient_is_refused_the_caller_hears_it() {
    let Some(store) = Store::start() else { return };
    server::when_every_recipient_is_refused_the_caller_hears_it(&store, &["550 5.1.1", "User doesn't exist"]);
}

#[test]
fn a_full_mailbox_among_the_answers_to_the_letter_does_not_cost_the_others() {
    let Some(store) = Store::start() else { return };
    for (count, account) in [store.account(""), store.local_account()].into_iter().enumerate() {
        let (household, letter) = (Household::patient(&account), complete("full", "For three.\n"));
        let words = ["bob@example.org", "full@example.org", "carol@example.org"];
        let ended = household.sendmail(&words, &letter);
        assert_eq!(ended.status, 0, "{ended:?}");
        household.run_queue();
        household.assert_queue_is_empty();
        for mailbox in ["bob@example.org", "carol@example.org"] {
            let arrived = store.letters(mailbox, count + 1);
            assert!(arrived.iter().all(|arrived| arrived.as_sent() == letter), "{arrived:?}");
        }
        store.assert_no_letter("full@example.org");
        for bounce in store.letters("alice@example.org", count + 1) {
            let text = bounce.text().replace("rfc822; ", "rfc822;");
            for words in ["Final-Recipient: rfc822;full@example.org", "Status: 5.2.2", "Quota exceeded"] {
                assert!(text.contains(words), "no {words:?} in {text}");
            }
            assert_eq!(text.matches("Final-Recipient").count(), 1, "{text}");
        }
    }
}
