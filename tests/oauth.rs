//! OAuth from end to end: the real `sendmail`, a token endpoint and a relay on loopback.
//!
//! The relay lets in whoever shows the token that its script has; the endpoint counts how often it is asked.

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use support::certificates::Shown;
use support::relay::{Dialogue, Relay, Script};
use support::running::Ended;
use support::sendmail::Sendmail;
use support::tokens::{Does, Tokens, grant, json};

const LETTER: &[u8] = b"Subject: x\n\nhello\n";

/// A relay that lets alice in with this token.
fn relay(mechanisms: &str, token: &str) -> Relay {
    let mut script = Script::default().mechanisms(mechanisms);
    script.login = Some(("alice".to_owned(), token.to_owned()));
    Relay::start(script)
}

/// A home whose account takes its tokens from there.
fn home(relay: &Relay, tokens: &Tokens) -> Sendmail {
    home_with(relay, tokens, "", "")
}

fn home_with(relay: &Relay, tokens: &Tokens, account: &str, more: &str) -> Sendmail {
    let sendmail = Sendmail::new("");
    sendmail.put("refresh", "refresh-1\n");
    configure(&sendmail, relay, tokens, account, more);
    sendmail
}

fn configure(sendmail: &Sendmail, relay: &Relay, tokens: &Tokens, account: &str, more: &str) {
    let oauth = format!(
        "token_url = \"{}\", client_id = \"box\", client_secret = \"s3cr&t\", \
         refresh_token = {{ file = \"{}\" }}{more}",
        tokens.url(),
        sendmail.home().join("refresh").display()
    );
    sendmail.configure(relay, &format!("password = {{ oauth = {{ {oauth} }} }}\n{account}"), "");
}

fn send(sendmail: &Sendmail) -> Ended {
    sendmail.run(&["bob@example.org"], LETTER)
}

fn arrives(sendmail: &Sendmail) {
    let ran = send(sendmail);
    assert_eq!((ran.status, &*ran.stderr), (0, ""), "{ran:?}");
}

/// Sends, and expects it to be queued, with these words about why.
fn waits(sendmail: &Sendmail, words: &[&str]) {
    let ran = send(sendmail);
    assert_eq!(ran.status, 0, "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "no {word:?} in {ran:?}");
    }
    for secret in ["refresh-1", "s3cr", "token-"] {
        assert!(!ran.stderr.contains(secret), "{secret} in {ran:?}");
    }
}

/// Mechanism and token of each login.
fn logins(relay: Relay) -> Vec<(String, String)> {
    let logins = |dialogue: Dialogue| dialogue.logins.into_iter().map(|(mechanism, _, token)| (mechanism, token));
    relay.finish().into_iter().flat_map(logins).collect()
}

fn with(mechanism: &str, tokens: &[&str]) -> Vec<(String, String)> {
    tokens.iter().map(|&token| (mechanism.to_owned(), token.to_owned())).collect()
}

/// The files below the state directory, but for locks.
fn kept(sendmail: &Sendmail) -> Vec<PathBuf> {
    let dir = sendmail.home().join(".local/state/pillarbox/oauth");
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension().is_none_or(|ending| ending != "lock")).collect()
}

#[test]
fn a_refresh_token_is_exchanged_once_for_many_runs() {
    for mechanism in ["OAUTHBEARER", "XOAUTH2"] {
        let relay = relay(&format!("PLAIN LOGIN {mechanism}"), "token-1");
        let tokens = Tokens::start(vec![grant("token-1", 3600, "")]);
        let home = home(&relay, &tokens);
        for _ in 0..3 {
            arrives(&home);
        }
        let form = "grant_type=refresh_token&client_id=box&client_secret=s3cr%26t&refresh_token=refresh-1";
        assert_eq!(tokens.forms(), [form]);
        let files = kept(&home);
        assert_eq!(files.len(), 1, "{files:?}");
        let modes = [&*files[0], files[0].parent().unwrap()].map(|path| path.metadata().unwrap().mode() & 0o7777);
        assert_eq!(modes, [0o600, 0o700]);
        assert_eq!(logins(relay), with(mechanism, &["token-1"; 3]));
    }
}

#[test]
fn a_token_never_travels_as_a_password() {
    let relay = relay("PLAIN LOGIN", "token-1");
    let tokens = Tokens::start(vec![grant("token-1", 3600, "")]);
    let home = home(&relay, &tokens);
    waits(&home, &["offers AUTH PLAIN LOGIN, but not OAUTHBEARER or XOAUTH2"]);
    assert!(logins(relay).is_empty());
    // Said in the settings, it is a mistake there.
    let relay = self::relay("PLAIN", "token-1");
    configure(&home, &relay, &tokens, "auth = \"plain\"", "");
    let ran = send(&home);
    assert_eq!(ran.status, 78);
    assert!(ran.stderr.contains("an access token is no password"), "{ran:?}");
}

#[test]
fn many_processes_at_once_ask_once() {
    let relay = relay("XOAUTH2", "token-1");
    let tokens = Tokens::start(vec![grant("token-1", 3600, ",\"refresh_token\":\"refresh-2\""), json(400, "{}")]);
    let home = home(&relay, &tokens);
    std::thread::scope(|threads| {
        for _ in 0..6 {
            threads.spawn(|| arrives(&home));
        }
    });
    assert_eq!(tokens.forms().len(), 1);
    assert_eq!(logins(relay).len(), 6);
}

#[test]
fn a_token_that_has_expired_is_exchanged_again() {
    let relay = relay("XOAUTH2", "token-1");
    let tokens = Tokens::start(vec![grant("token-1", 30, "")]);
    let home = home(&relay, &tokens);
    arrives(&home);
    arrives(&home);
    assert_eq!(tokens.forms().len(), 2);
}

#[test]
fn a_new_refresh_token_replaces_the_old_one_until_somebody_logs_in_again() {
    let relay = relay("XOAUTH2", "token-1");
    let tokens = Tokens::start(vec![
        grant("token-1", 30, ",\"refresh_token\":\"refresh-2\""),
        grant("token-1", 30, ""),
        grant("token-1", 30, ",\"refresh_token\":\"refresh-3\""),
        grant("token-1", 30, ""),
    ]);
    let home = home(&relay, &tokens);
    for _ in 0..4 {
        arrives(&home);
    }
    home.put("refresh", "login-2\n");
    arrives(&home);
    let forms = tokens.forms();
    let shown: Vec<&str> = forms.iter().map(|form| form.rsplit('=').next().unwrap()).collect();
    assert_eq!(shown, ["refresh-1", "refresh-2", "refresh-2", "refresh-3", "login-2"]);
}

/// What was kept can be revoked: one exchange and one more try, and no third.
#[test]
fn a_token_that_the_relay_refuses_is_exchanged_once() {
    let relay = relay("XOAUTH2", "token-2");
    let tokens = Tokens::start(vec![grant("token-1", 3600, ""), grant("token-2", 3600, "")]);
    let home = home(&relay, &tokens);
    // Fresh from the endpoint, and refused: asking again at once would help nobody.
    waits(&home, &["535 5.7.8 token refused", "status=401"]);
    assert_eq!(tokens.forms().len(), 1);
    // What was refused is not kept.
    arrives(&home);
    assert_eq!(tokens.forms().len(), 2);
    assert_eq!(logins(relay), with("XOAUTH2", &["token-1", "token-2"]));

    // Kept, and revoked in the meantime.
    let relay = self::relay("XOAUTH2", "token-3");
    let tokens = Tokens::start(vec![grant("token-2", 3600, ""), grant("token-3", 3600, "")]);
    let first = self::relay("XOAUTH2", "token-2");
    configure(&home, &first, &tokens, "", "");
    arrives(&home);
    configure(&home, &relay, &tokens, "", "");
    arrives(&home);
    arrives(&home);
    assert_eq!(tokens.forms().len(), 2);
    assert_eq!(logins(first), with("XOAUTH2", &["token-2"]));
    assert_eq!(logins(relay), with("XOAUTH2", &["token-2", "token-3", "token-3"]));

    // Nothing that can be had is taken.
    let relay = self::relay("XOAUTH2", "never");
    configure(&home, &relay, &tokens, "", "");
    waits(&home, &["535 5.7.8 token refused"]);
    assert_eq!(tokens.forms().len(), 3);
    assert_eq!(logins(relay), with("XOAUTH2", &["token-3", "token-3"]));
}

#[test]
fn an_endpoint_that_gives_no_token_costs_no_letter() {
    let says = |text: &str| Does::Says(text.to_owned());
    let expired = r#"{"error":"invalid_grant","error_description":"refresh-1 of s3cr&t \u001b[2J expired"}"#;
    let rows: Vec<(Does, &[&str])> = vec![
        (
            json(400, expired),
            &["the token endpoint 127.0.0.1:", "(invalid_grant, \"**** of **** \\x1b[2J expired\"); log in again"],
        ),
        (json(401, r#"{"error":"invalid_client"}"#), &["check client_id and client_secret"]),
        (json(500, "<html>down</html>"), &["answered with HTTP status 500"]),
        (json(200, "<html>hello</html>"), &["something that is no token"]),
        (json(200, "{}"), &["without an access token"]),
        (says("220 relay ESMTP\r\n\r\n"), &["no HTTP: its first line is no status"]),
        (says(""), &["closed the connection without an answer"]),
        (says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), &["no HTTP: it ends too early"]),
        (
            says("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\x1b\r\nContent-Length: 0\r\n\r\n"),
            &["redirects us to http://127.0.0.1:9/\\x1b, and tokens are not carried on"],
        ),
        (Does::Floods("HTTP/1.1 200 OK\r\n"), &["no HTTP: its head is too long"]),
        (Does::Floods("HTTP/1.1 200 OK\r\n\r\n"), &["it answers without an end"]),
        (Does::Stalls, &["did not answer in time"]),
    ];
    for (does, words) in rows {
        let is_silent = matches!(does, Does::Stalls);
        let relay = relay("XOAUTH2", "token-1");
        let tokens = Tokens::start(vec![does, grant("token-1", 3600, "")]);
        let home = home(&relay, &tokens);
        let patient = std::fs::read_to_string(home.home().join("config.toml")).unwrap();
        if is_silent {
            home.put("config.toml", &patient.replace("deadline = \"30s\"", "deadline = \"1s\""));
        }
        waits(&home, words);
        home.put("config.toml", &patient);
        assert_eq!((relay.connections(), tokens.forms().len()), (0, 1), "{words:?}");
        // Once it has recovered, both letters arrive.
        arrives(&home);
        let ran = home.run(&["-qf"], b"");
        assert_eq!(ran.status, 0, "{ran:?}");
        assert_eq!(logins(relay).len(), 2, "{words:?}");
    }
}

#[test]
fn an_endpoint_must_prove_who_it_is() {
    let relay = relay("XOAUTH2", "token-1");
    let (authority, pin, nobody) = (", ca_file = \"AUTHORITY\"", ", pin = \"PIN\"", "");
    for (shown, trusted, told) in [
        (Shown::Good, authority, None),
        (Shown::SelfSigned, pin, None),
        (Shown::Good, nobody, Some("no authority known to this machine has signed")),
        (Shown::Expired, authority, Some("expired")),
        (Shown::OtherName, authority, Some("mail.elsewhere.example")),
        (Shown::OtherAuthority, authority, Some("has signed")),
    ] {
        let tokens = Tokens::with_tls(vec![grant("token-1", 3600, "")], shown);
        let home = home(&relay, &tokens);
        let identity = tokens.identity.as_ref().unwrap();
        let file = home.put("endpoint.pem", &identity.authority);
        let more = trusted.replace("AUTHORITY", &file.display().to_string()).replace("PIN", &identity.pin());
        configure(&home, &relay, &tokens, "", &more);
        match told {
            None => arrives(&home),
            Some(word) => waits(&home, &["the token endpoint 127.0.0.1:", word]),
        }
        assert_eq!(tokens.forms().len(), usize::from(told.is_none()), "{shown:?}");
    }
    assert_eq!(logins(relay), with("XOAUTH2", &["token-1"; 2]));
}

#[test]
fn a_secret_that_cannot_be_had_is_told_by_its_key() {
    let relay = relay("XOAUTH2", "token-1");
    let tokens = Tokens::start(vec![grant("token-1", 3600, "")]);
    let home = home(&relay, &tokens);
    std::fs::remove_file(home.home().join("refresh")).unwrap();
    waits(&home, &["refresh_token: ", "cannot be read: No such file"]);
    assert!(tokens.forms().is_empty());
    // A kept token needs no refresh token, which may lie behind a prompt.
    home.put("refresh", "refresh-1\n");
    arrives(&home);
    std::fs::remove_file(home.home().join("refresh")).unwrap();
    arrives(&home);
    assert_eq!(tokens.forms().len(), 1);
}

#[test]
fn tokens_are_shown_neither_in_the_dialogue_nor_in_the_log() {
    let relay = relay("XOAUTH2", "token-1");
    let tokens = Tokens::start(vec![grant("token-1", 3600, "")]);
    let home = home(&relay, &tokens);
    let log = home.home().join("log");
    let text = std::fs::read_to_string(home.home().join("config.toml")).unwrap();
    home.put("config.toml", &format!("log = \"{}\"\n{text}", log.display()));
    let ran = home.run(&["-v", "bob@example.org"], LETTER);
    assert_eq!(ran.status, 0, "{ran:?}");
    let all = format!("{}{}{}", ran.stdout, ran.stderr, std::fs::read_to_string(log).unwrap());
    assert!(all.contains("AUTH XOAUTH2 ****"), "{all}");
    for secret in ["token-1", "refresh-1", "s3cr"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

#[test]
fn what_somebody_else_has_put_where_tokens_are_kept_is_not_used() {
    let relay = relay("XOAUTH2", "token-1");
    let tokens = Tokens::start(vec![grant("token-1", 3600, "")]);
    let home = home(&relay, &tokens);
    arrives(&home);
    let file = kept(&home).remove(0);
    let trap = home.put("trap", &std::fs::read_to_string(&file).unwrap().replace("token-1", "token-0"));
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&trap, &file).unwrap();
    arrives(&home);
    assert_eq!(tokens.forms().len(), 2);
    assert!(std::fs::read_to_string(trap).unwrap().contains("token-0"));
    assert!(!file.is_symlink());
    // No place to keep it is no reason not to send.
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file.parent().unwrap(), "").unwrap();
    arrives(&home);
    assert_eq!(tokens.forms().len(), 3);
}
