//! Letters through a real OpenSMTPD: a server that knows neither PIPELINING nor CHUNKING, and refuses without enhanced
//! status codes.
#![allow(clippy::unwrap_used)]

mod support;

use std::thread;
use support::household::Household;
use support::letter::complete;
use support::opensmtpd::Opensmtpd;
use support::peer::wait_for;
use support::server::{self, Server};

/// More than any letter of these tests.
const ENOUGH: usize = 100_000_000;

/// One that runs; `return`s from the test where it is not to be had.
macro_rules! opensmtpd {
    () => {
        opensmtpd!(ENOUGH)
    };
    ($limit:expr) => {{
        let Some(opensmtpd) = Opensmtpd::start($limit) else { return };
        opensmtpd
    }};
}

#[test]
fn a_letter_reaches_its_recipient_byte_for_byte() {
    let opensmtpd = opensmtpd!();
    server::a_letter_reaches_its_recipient_byte_for_byte(&opensmtpd);
    let log = opensmtpd.log();
    assert!(log.contains("authentication user=alice result=ok") && log.contains("tls ciphers=TLSv1.3"), "{log}");
}

#[test]
fn implicit_tls_carries_it_as_well() {
    let opensmtpd = opensmtpd!();
    let port = |port: u16| format!("port = {port}\n");
    let account = opensmtpd.account("tls = \"implicit\"").replace(&port(opensmtpd.port), &port(opensmtpd.tls_port));
    let letter = complete("implicit", "First letter.\n");
    Household::patient(&account).send(&["bob@example.org"], &letter);
    assert_eq!(opensmtpd.letter("bob@example.org").as_sent(), letter);
}

#[test]
fn fifty_recipients_cost_one_transaction() {
    let opensmtpd = opensmtpd!();
    server::fifty_recipients_get_one_letter_each(&opensmtpd);
    wait_for("the session's end", || opensmtpd.log().contains("reason=quit").then_some(()));
    let log = opensmtpd.log();
    assert!(log.contains(" nrcpt=50 ") && log.matches(" smtp message ").count() == 1, "{log}");
}

#[test]
fn one_refused_recipient_does_not_cost_the_others() {
    let opensmtpd = opensmtpd!();
    server::one_refused_recipient_does_not_cost_the_others(&opensmtpd, "5.", "Invalid recipient");
    assert!(opensmtpd.log().contains(" from=<> to=<alice@example.org>"), "{}", opensmtpd.log());
}

#[test]
fn when_every_recipient_is_refused_the_caller_hears_it() {
    let said = ["localhost", "550 Invalid recipient"];
    server::when_every_recipient_is_refused_the_caller_hears_it(&opensmtpd!(), &said);
}

#[test]
fn our_own_faults_keep_the_letter_and_speak_up() {
    server::our_own_faults_keep_the_letter_and_speak_up(&opensmtpd!());
}

#[test]
fn eight_bits_arrive_as_they_were_written() {
    server::eight_bits_arrive_as_they_were_written(&opensmtpd!());
}

#[test]
fn a_name_that_it_could_not_take_is_not_sent() {
    let opensmtpd = opensmtpd!();
    let letter = complete("utf8", "Hallo Jürgen\n");
    opensmtpd.household("").sendmail(&["jürgen@example.org"], &letter).says(65, &["jürgen@example.org", "SMTPUTF8"]);
    assert!(!opensmtpd.log().contains("failed-command"), "{}", opensmtpd.log());
}

#[test]
fn twenty_megabytes_arrive_byte_for_byte() {
    server::twenty_megabytes_arrive_byte_for_byte(&opensmtpd!());
}

#[test]
fn a_letter_over_its_limit_is_refused_before_it_is_sent() {
    let opensmtpd = opensmtpd!(100_000);
    server::a_letter_over_the_servers_limit_is_refused_before_it_is_sent(&opensmtpd, 100_000);
    wait_for("the session's end", || opensmtpd.log().contains("reason=quit").then_some(()));
    assert!(!opensmtpd.log().contains("failed-command"), "{}", opensmtpd.log());
}

#[test]
fn a_server_that_is_stopped_gets_its_letter_later() {
    let opensmtpd = opensmtpd!();
    server::a_server_that_is_stopped_gets_its_letter_later(&opensmtpd, || opensmtpd.stop(), || opensmtpd.restart());
}

/// A letter that is under way when the server is killed at that phase, and comes once, later. What `mailq` says then.
fn killed_at(phase: &str, body: &str) -> Option<String> {
    let opensmtpd = Opensmtpd::start(ENOUGH)?;
    opensmtpd.restart_to_hold_at(phase);
    let (household, letter) = (opensmtpd.household(""), complete("killed", body));
    thread::scope(|scope| {
        scope.spawn(|| {
            opensmtpd.wait_until_it_holds();
            opensmtpd.stop();
        });
        household.send(&["bob@example.org"], &letter);
    });
    let listing = household.mailq();
    assert!(listing.contains("bob@example.org"), "{listing}");
    opensmtpd.assert_no_letter("bob@example.org");
    opensmtpd.restart();
    household.run_queue();
    assert!(opensmtpd.letter("bob@example.org").as_sent() == letter);
    household.assert_queue_is_empty();
    Some(listing)
}

#[test]
fn a_server_that_dies_before_the_letter_gets_it_once_later() {
    let Some(listing) = killed_at("data", "Again?\n") else { return };
    assert!(!listing.contains("duplicate"), "{listing}");
}

#[test]
fn a_server_that_dies_in_the_middle_of_the_letter_gets_it_once_later() {
    // How much of it had left when the first line was held nobody can say, so neither may we say how that is told.
    let _ = killed_at("data-line", &"0123456789\n".repeat(1_000_000));
}

#[test]
fn a_server_that_dies_after_the_final_dot_leaves_a_possible_duplicate() {
    let Some(listing) = killed_at("commit", "Got it?\n") else { return };
    assert!(listing.contains("possible duplicate"), "{listing}");
}
