//! Every SASL mechanism against a real Postfix that asks a real
//! Dovecot, each with the right secret and with a wrong one.
#![allow(clippy::unwrap_used)]

mod support;

use support::dovecot::Dovecot;
use support::household::Household;
use support::letter::complete;
use support::peer::wait_for;
use support::postfix::Postfix;
use support::server::{PASSWORD, Server, USER};

const TOKEN: &str = "ya29.a-token/with+all=kinds~of.characters";

/// A Postfix that has Dovecot look at passwords.
fn start() -> Option<(Dovecot, Postfix)> {
    let dovecot = Dovecot::start(USER, PASSWORD, TOKEN)?;
    let socket = dovecot.socket().display().to_string();
    let postfix = Postfix::start(&[
        ("smtpd_sasl_type", "dovecot"),
        ("smtpd_sasl_path", &socket),
        ("smtpd_sasl_security_options", "noanonymous"),
        ("smtpd_hard_error_limit", "100"),
    ])?;
    Some((dovecot, postfix))
}

fn household(postfix: &Postfix, auth: &str, secret: &str) -> Household {
    let account = postfix.account(&format!("auth = \"{auth}\""));
    Household::patient(&account.replace(&format!("'{PASSWORD}'"), &format!("'{secret}'")))
}

#[test]
fn every_mechanism_lets_the_right_secret_in_and_tells_a_wrong_one() {
    let Some((dovecot, postfix)) = start() else { return };
    let mechanisms = [
        ("auto", "SCRAM-SHA-256", PASSWORD),
        ("scram-sha-256", "SCRAM-SHA-256", PASSWORD),
        ("scram-sha-1", "SCRAM-SHA-1", PASSWORD),
        ("cram-md5", "CRAM-MD5", PASSWORD),
        ("plain", "PLAIN", PASSWORD),
        ("login", "LOGIN", PASSWORD),
        ("oauthbearer", "OAUTHBEARER", TOKEN),
        ("xoauth2", "XOAUTH2", TOKEN),
    ];
    for (count, (auth, name, secret)) in mechanisms.into_iter().enumerate() {
        let wrong = household(&postfix, auth, "open-sesame!");
        let ended = wrong.sendmail(&["bob@example.org"], &complete("wrong", "Let me in.\n"));
        assert_eq!(ended.status, 0, "{auth}: {ended:?}");
        assert!(ended.stderr.contains("535") && ended.stderr.contains("account work"), "{auth}: {ended:?}");
        assert!(!ended.stderr.contains("open-sesame!"), "{auth}: {ended:?}");
        assert!(wrong.mailq().contains("bob@example.org"), "{auth}");

        let letter = complete(auth, "It is me.\n");
        household(&postfix, auth, secret).send(&["bob@example.org"], &letter);
        let arrived = postfix.letters("bob@example.org", count + 1);
        assert!(arrived.iter().any(|arrived| arrived.as_sent() == letter), "{auth}: {}", dovecot.log());
        let line = format!("sasl_method={name}, sasl_username={USER}");
        let expected = if name == "SCRAM-SHA-256" { count + 1 } else { 1 };
        wait_for(&format!("{line} in the log"), || (postfix.log().matches(&line).count() == expected).then_some(()));
    }
}

#[test]
fn a_mechanism_that_binds_the_session_is_not_pretended() {
    let Some((_dovecot, postfix)) = start() else { return };
    let home = household(&postfix, "scram-sha-256-plus", PASSWORD);
    home.sendmail(&["bob@example.org"], &complete("plus", "x\n")).says(0, &["SCRAM-SHA-256-PLUS"]);
    assert!(home.mailq().contains("bob@example.org"));
}
