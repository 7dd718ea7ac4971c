//! Letters through a real Postfix: submission over TLS with a password, as at a provider.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use support::household::Household;
use support::letter::complete;
use support::peer::wait_for;
use support::postfix::{Policy, Postfix, has_read, kill};
use support::server::{self, PASSWORD, Server};

/// A Postfix and a household with an account there; `return`s from the test where Postfix is not to be had.
macro_rules! postfix {
    ($($setting:expr),*) => {{
        let Some(postfix) = Postfix::start(&[$($setting),*]) else { return };
        let household = Household::patient(&postfix.account(""));
        (postfix, household)
    }};
}

#[test]
fn a_letter_reaches_its_recipient_byte_for_byte() {
    let (postfix, _) = postfix!();
    server::a_letter_reaches_its_recipient_byte_for_byte(&postfix);
    assert!(postfix.log().contains("sasl_username=alice"), "{}", postfix.log());
}

#[test]
fn implicit_tls_carries_it_as_well() {
    let Some(postfix) = Postfix::start(&[]) else { return };
    let household = Household::patient(&implicit(&postfix));
    let letter = complete("implicit", "First letter.\n");
    household.send(&["bob@example.org"], &letter);
    assert_eq!(postfix.letter("bob@example.org").as_sent(), letter);
}

fn implicit(postfix: &Postfix) -> String {
    let (starttls, implicit) = (format!("port = {}", postfix.port), format!("port = {}", postfix.tls_port));
    postfix.account("tls = \"implicit\"").replace(&starttls, &implicit)
}

#[test]
fn fifty_recipients_cost_one_transaction() {
    let (postfix, _) = postfix!();
    server::fifty_recipients_get_one_letter_each(&postfix);
    wait_for("the session's end", || postfix.log().contains("mail=1 rcpt=50 ").then_some(()));
}

#[test]
fn one_refused_recipient_does_not_cost_the_others() {
    let (postfix, _) = postfix!();
    server::one_refused_recipient_does_not_cost_the_others(&postfix, "5.1.1", "User unknown");
}

#[test]
fn when_every_recipient_is_refused_the_caller_hears_it() {
    let (postfix, _) = postfix!();
    let said = ["localhost", "550 5.1.1", "User unknown"];
    server::when_every_recipient_is_refused_the_caller_hears_it(&postfix, &said);
}

#[test]
fn our_own_faults_keep_the_letter_and_speak_up() {
    let (postfix, _) = postfix!();
    server::our_own_faults_keep_the_letter_and_speak_up(&postfix);
}

#[test]
fn the_right_password_after_a_wrong_one_is_found_on_the_relay_as_well() {
    let (postfix, household) = postfix!();
    postfix.admit("changed overnight");
    let letter = complete("locked", "Let me in.\n");
    household.sendmail(&["bob@example.org"], &letter).says(0, &["535 5.7.8"]);
    postfix.admit(PASSWORD);
    household.run_queue();
    assert_eq!(postfix.letter("bob@example.org").as_sent(), letter);
}

#[test]
fn eight_bits_and_other_alphabets_arrive_as_they_were_written() {
    let (postfix, household) = postfix!();
    server::eight_bits_arrive_as_they_were_written(&postfix);

    // RFC 6531: a name that no older server could be given.
    let utf8 =
        String::from_utf8(complete("utf8", "Hallo Jürgen\n")).unwrap().replace("To: Bob <bob@", "To: Jürgen <jürgen@");
    let utf8 =
        format!("MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n{utf8}");
    household.send(&["-t"], utf8.as_bytes());
    assert_eq!(postfix.letter("jürgen@example.org").as_sent(), utf8.as_bytes());
    assert_eq!(postfix.log().matches("smtputf8").count(), 0, "{}", postfix.log());
}

#[test]
fn twenty_megabytes_arrive_byte_for_byte() {
    let (postfix, _) = postfix!();
    server::twenty_megabytes_arrive_byte_for_byte(&postfix);
}

#[test]
fn a_letter_over_the_relays_limit_is_refused_before_it_is_sent() {
    let (postfix, _) = postfix!(("message_size_limit", "100000"));
    server::a_letter_over_the_servers_limit_is_refused_before_it_is_sent(&postfix, 100_000);
    wait_for("the session's end", || postfix.log().contains("disconnect").then_some(()));
    assert!(![" data=", " bdat="].iter().any(|verb| postfix.log().contains(verb)), "{}", postfix.log());
}

#[test]
fn a_relay_that_is_stopped_gets_its_letter_later() {
    let (postfix, _) = postfix!();
    server::a_server_that_is_stopped_gets_its_letter_later(&postfix, || postfix.stop(), || postfix.restart());
}

#[test]
fn a_recipient_who_is_deferred_does_not_hold_up_the_others() {
    let (postfix, household) = postfix!((
        "smtpd_recipient_restrictions",
        "check_recipient_access inline:{{carol@example.org = 450 4.2.1 Carol is on the stairs}}, \
         permit_sasl_authenticated, reject"
    ));
    let letter = complete("stairs", "Dinner is ready.\n");
    household.send(&["bob@example.org", "carol@example.org"], &letter);
    assert_eq!(postfix.letter("bob@example.org").as_sent(), letter);
    let listing = household.mailq();
    assert!(listing.contains("carol@example.org") && listing.contains("Carol is on the stairs"), "{listing}");
    assert!(!listing.contains("bob@example.org"), "{listing}");

    postfix.set("smtpd_recipient_restrictions", "permit_sasl_authenticated, reject");
    household.run_queue();
    assert_eq!(postfix.letter("carol@example.org").as_sent(), letter);
    assert_eq!(postfix.letter("bob@example.org").as_sent(), letter);
    household.assert_queue_is_empty();
}

#[test]
fn restrictions_of_every_stage_defer_the_letter() {
    let stages = [
        ("smtpd_client_restrictions", "reject_unlisted_sender, defer"),
        ("smtpd_helo_restrictions", "defer"),
        ("smtpd_sender_restrictions", "defer"),
        ("smtpd_recipient_restrictions", "defer"),
        ("smtpd_data_restrictions", "defer"),
        ("smtpd_end_of_data_restrictions", "defer"),
    ];
    let (postfix, household) = postfix!();
    for (count, (stage, restriction)) in stages.into_iter().enumerate() {
        postfix.set(stage, restriction);
        let letter = complete(stage, "Not now.\n");
        household.send(&["bob@example.org"], &letter);
        assert!(household.mailq().contains("bob@example.org"), "{stage}: {}", household.mailq());
        postfix.set(stage, if stage == "smtpd_recipient_restrictions" { "permit" } else { "" });
        household.run_queue();
        household.assert_queue_is_empty();
        assert!(
            postfix.letters("bob@example.org", count + 1).iter().any(|arrived| arrived.as_sent() == letter),
            "{stage}"
        );
    }
}

#[test]
fn a_full_relay_is_tried_again() {
    let (postfix, household) = postfix!(("queue_minfree", "9000000000000000"));
    let letter = complete("full", "Squeeze in.\n");
    household.send(&["bob@example.org"], &letter);
    assert!(household.mailq().contains("Insufficient system storage"), "{}", household.mailq());
    postfix.set("queue_minfree", "0");
    household.run_queue();
    assert_eq!(postfix.letter("bob@example.org").as_sent(), letter);
    household.assert_queue_is_empty();
}

/// Makes that stage of the next session the moment in which `act` happens; the sessions after it are none of its
/// business.
fn once(postfix: &Postfix, stage: &str, act: fn(&Path)) {
    let (root, asked) = (postfix.root().to_owned(), AtomicBool::new(false));
    let policy = Policy::start(move || {
        if !asked.swap(true, Ordering::SeqCst) {
            act(&root);
        }
    });
    postfix.set(stage, &policy.service);
}

#[test]
fn a_relay_that_dies_before_the_letter_gets_it_once_later() {
    // With BDAT the letter travels with its envelope, and who could say how much of it was read?
    let (postfix, household) = postfix!(("smtpd_discard_ehlo_keywords", "chunking"));
    once(&postfix, "smtpd_data_restrictions", |root| kill(root, "smtpd", "KILL"));
    let letter = complete("before", "Again?\n");
    household.send(&["bob@example.org"], &letter);
    assert!(!household.mailq().contains("duplicate"), "{}", household.mailq());
    household.run_queue();
    household.assert_queue_is_empty();
    assert_eq!(postfix.letter("bob@example.org").as_sent(), letter);
}

#[test]
fn a_relay_that_dies_in_the_middle_of_the_letter_gets_it_once_later() {
    let (postfix, household) = postfix!();
    once(&postfix, "smtpd_data_restrictions", |root| {
        // While cleanup stands still, smtpd cannot get rid of what it receives, and the letter is stuck on the wire.
        kill(root, "cleanup", "STOP");
        let root = root.to_owned();
        std::thread::spawn(move || {
            wait_for("some of the letter", || (has_read(&root, "smtpd") > 100_000).then_some(()));
            kill(&root, "smtpd", "KILL");
        });
    });
    let letter = complete("middle", &"0123456789\n".repeat(1_000_000));
    household.send(&["bob@example.org"], &letter);
    kill(postfix.root(), "cleanup", "CONT");
    assert!(!household.mailq().contains("duplicate"), "{}", household.mailq());
    household.run_queue();
    household.assert_queue_is_empty();
    assert!(postfix.letter("bob@example.org").as_sent() == letter);
}

#[test]
fn a_relay_that_dies_after_the_final_dot_leaves_a_possible_duplicate() {
    let (postfix, household) = postfix!();
    once(&postfix, "smtpd_end_of_data_restrictions", |root| kill(root, "smtpd", "KILL"));
    let letter = complete("after", "Got it?\n");
    household.send(&["bob@example.org"], &letter);
    let listing = household.mailq();
    assert!(listing.contains("bob@example.org") && listing.contains("possible duplicate"), "{listing}");
    household.run_queue();
    household.assert_queue_is_empty();
    assert_eq!(postfix.letter("bob@example.org").as_sent(), letter);
}
