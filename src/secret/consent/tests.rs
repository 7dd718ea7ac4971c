//! A provider that plays its part by a script: how a device waits, and what a browser brings back.

use super::*;
use crate::config::{Consent, PasswordSource, Tls};

const ALICE: Identity<'_> = Identity { host: "smtp.example.com", user: "alice", first: "smtp.example.com" };

fn url(target: &str) -> TokenUrl {
    TokenUrl { tls: Tls::Implicit, host: "id.example".to_owned(), port: 443, target: target.to_owned() }
}

fn oauth() -> OAuth {
    OAuth {
        token_url: url("/token"),
        scope: None,
        client_id: "box".to_owned(),
        client_secret: Some(PasswordSource::Literal(Zeroizing::new("s3cret".to_owned()))),
        refresh_token: PasswordSource::File("/r".into()),
        ca_file: None,
        pins: Vec::new(),
        consent: Consent {
            auth_url: Some(url("/auth")),
            device_url: Some(url("/device")),
            scope: Some("mail offline".to_owned()),
            by_name: false,
        },
    }
}

fn env(post: fn(&Post<'_>) -> Result<Answer, String>) -> SecretEnv {
    let limit = Duration::from_secs(30);
    SecretEnv { credentials_directory: None, home: None, uid: 0, limit, state: None, post }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what an endpoint is asked by")]
fn answer(status: u16, body: &str) -> Result<Answer, String> {
    Ok(Answer { status, location: None, body: Zeroizing::new(body.as_bytes().to_vec()) })
}

fn text(secret: &Secret) -> &str {
    std::str::from_utf8(secret.dangerous_expose()).unwrap()
}

/// The device endpoint's code is the token endpoint's script.
fn provider(post: &Post<'_>) -> Result<Answer, String> {
    let form = String::from_utf8_lossy(post.form).into_owned();
    assert!(form.ends_with("client_id=box&client_secret=s3cret"), "{form}");
    if post.oauth.token_url.target == "/device" {
        assert!(form.starts_with("scope=mail%20offline&"), "{form}");
        return answer(
            200,
            r#"{"device_code":"d-1","user_code":"AB\u001b[2J-CD",
                "verification_uri":"https://id.example/go","expires_in":900}"#,
        );
    }
    assert!(form.contains("device_code&device_code="), "{form}");
    let error = form.split("device_code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    match error.as_str() {
        "granted" => answer(200, r#"{"access_token":"a","refresh_token":"r-1"}"#),
        "unlasting" => answer(200, r#"{"access_token":"a"}"#),
        "html" => answer(500, "<html>"),
        other => answer(400, &format!(r#"{{"error":"{other}","error_description":"{other} s3cret"}}"#)),
    }
}

#[test]
fn a_device_waits_for_its_user_and_is_told_what_came_of_it() {
    let (oauth, env) = (oauth(), env(provider));
    let client = Client { oauth: &oauth, whose: &ALICE, env: &env };
    let mut device = Device::ask(client).unwrap();
    assert_eq!((device.user_code.as_str(), device.place.as_str()), ("AB\\x1b[2J-CD", "https://id.example/go"));
    assert_eq!((device.interval, device.life), (INTERVAL, Duration::from_mins(15)));
    let mut poll = |code: &str| {
        device.code = Secret::new(code.into());
        let polled = device.poll(client).map(|token| token.map(|token| text(&token).to_owned()));
        (polled.map_err(|why| why.to_string()), device.interval)
    };
    assert_eq!(poll("authorization_pending"), (Ok(None), INTERVAL));
    assert_eq!(poll("slow_down"), (Ok(None), 2 * INTERVAL));
    assert_eq!(poll("authorization_pending"), (Ok(None), 2 * INTERVAL));
    assert_eq!(poll("granted").0, Ok(Some("r-1".to_owned())));
    for (code, part) in [
        ("access_denied", "was told no by whoever entered the code"),
        ("expired_token", "has waited for the code in vain"),
        ("unlasting", "gave no refresh token"),
        ("html", "HTTP status 500"),
        ("invalid_client", "does not know us (****, \"**** ****\"); check client_id"),
    ] {
        let why = poll(code).0.unwrap_err();
        assert!(why.starts_with("the token endpoint id.example ") && why.contains(part), "{why}");
    }
}

#[test]
fn a_browser_carries_what_only_the_provider_can_bring_back() {
    let (oauth, env) = (oauth(), env(|_| Err("is not asked".to_owned())));
    let client = Client { oauth: &oauth, whose: &ALICE, env: &env };
    let browser = Browser::new(client, 4711).unwrap();
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, browser.verifier.dangerous_expose()));
    let state = browser.state.clone();
    assert_eq!(
        browser.url,
        format!(
            "https://id.example/auth?response_type=code&client_id=box&redirect_uri=http%3A%2F%2F127.0.0.1%3A4711%2F\
             &scope=mail%20offline&state={state}&code_challenge={challenge}&code_challenge_method=S256&login_hint=alice"
        )
    );
    assert_eq!((state.len(), browser.verifier.dangerous_expose().len()), (43, 43));
    assert_ne!(state, Browser::new(client, 4711).unwrap().state);
    assert!(matches!(browser.judge("/favicon.ico"), Visit::Elsewhere));
    assert!(matches!(browser.judge("/"), Visit::Elsewhere));
    assert!(matches!(browser.judge(&format!("/x?code=c&state={state}")), Visit::Elsewhere));
    assert!(matches!(browser.judge("/?code=c"), Visit::Forged));
    assert!(matches!(browser.judge("/?code=c&state=guess"), Visit::Forged));
    assert!(matches!(browser.judge("/?error=access_denied&state="), Visit::Forged));
    let Visit::Code(code) = browser.judge(&format!("/?state={state}&code=a%2Fb+c%zz&scope=x")) else {
        panic!("no code")
    };
    assert_eq!(text(&code), "a/b c%zz");
    let said = browser.judge(&format!("/?error=access_denied&error_description=no%1b[2J&state={state}"));
    assert!(matches!(said, Visit::Refused(words) if words == "access_denied: no\\x1b[2J"));
}

#[test]
fn a_code_is_redeemed_with_its_proof() {
    let post: fn(&Post<'_>) -> Result<Answer, String> = |post| {
        let form = String::from_utf8_lossy(post.form).into_owned();
        let proven = form.starts_with(
            "grant_type=authorization_code&code=c&redirect_uri=http%3A%2F%2Flocalhost%3A80%2F&code_verifier=",
        );
        if proven {
            answer(200, r#"{"access_token":"a","refresh_token":"r-2"}"#)
        } else {
            answer(400, r#"{"error":"invalid_grant"}"#)
        }
    };
    let (mut oauth, env) = (oauth(), env(post));
    oauth.consent.by_name = true;
    let client = Client { oauth: &oauth, whose: &ALICE, env: &env };
    let browser = Browser::new(client, 80).unwrap();
    assert_eq!(text(&browser.redeem(client, &Secret::new(b"c".to_vec())).unwrap()), "r-2");
    browser.redeem(client, &Secret::new(b"other".to_vec())).unwrap_err();
}

#[test]
fn a_way_that_the_settings_do_not_have_is_named() {
    let (mut oauth, env) = (oauth(), env(provider));
    (oauth.consent.auth_url, oauth.consent.device_url) = (None, None);
    let client = Client { oauth: &oauth, whose: &ALICE, env: &env };
    assert!(Device::ask(client).err().unwrap().to_string().contains("device_url is needed"));
    assert!(Browser::new(client, 1).err().unwrap().to_string().contains("auth_url is needed"));
}
