//! Access tokens: a refresh token is exchanged for one, which is kept until it expires.
//!
//! A token that is kept (see [`Shelf`]) and has a minute of life left is taken without asking anybody, not even for the
//! refresh token, which may lie behind a prompt. Otherwise one process at a time exchanges, and the others find
//! what it has kept. Where the provider answers with a new refresh token, that one is kept and used from then on, as
//! long as the settings name the one that it descends from: whoever has logged in again and put a new token there is
//! heard. What cannot be kept is told in the log and used nevertheless.
//!
//! Everything together is bounded by [`SecretEnv::limit`]. The provider's words are escaped, and the secrets struck
//! out of them. RFC 6749 §5 (answers), §6 (refreshing), RFC 6750 §2.1 (what a token consists of).

use super::shelf::{Kept, Shelf, Turn};
use super::{Identity, NoSecret, Secret, SecretEnv, obtain};
use crate::config::OAuth;
use crate::outcome::printable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// What a token must have left of its life, to be good until a session stands.
const MARGIN: u64 = 60;

/// The life of a token whose provider says nothing of it. In seconds.
const USUAL_LIFE: u64 = 10 * 60;

/// The longest life that is believed: a clock that was wrong once must not keep a token for years.
const LONGEST_LIFE: u64 = 24 * 60 * 60;

/// A form for a token endpoint.
pub struct Post<'a> {
    /// Where, and whom to trust there.
    pub oauth: &'a OAuth,
    /// `application/x-www-form-urlencoded`
    pub form: &'a [u8],
    /// When the answer must be there.
    pub until: Instant,
}

/// What a token endpoint has answered.
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// JSON, when all is well.
    pub body: Zeroizing<Vec<u8>>,
}

/// An access token, kept or new.
pub(super) fn access_token(oauth: &OAuth, whose: &Identity<'_>, env: &SecretEnv) -> Result<Secret, NoSecret> {
    let until = Instant::now() + env.limit;
    let shelf = shelf(oauth, whose, env);
    if let Some(token) = shelf.as_ref().and_then(|shelf| fresh(&shelf.read()?)) {
        return Ok(token);
    }
    let turn = match shelf.as_ref().map(|shelf| shelf.turn(until)) {
        None => None,
        Some(Ok(Some(turn))) => Some(turn),
        Some(Ok(None)) => {
            return Err(refused(oauth, "is being asked by another process, which has no answer yet".to_owned()));
        }
        Some(Err(why)) => {
            not_kept(&why);
            None
        }
    };
    // Whoever had the turn before us may have brought one.
    let kept = turn.as_ref().and_then(Turn::read);
    if let Some(token) = kept.as_ref().and_then(fresh) {
        return Ok(token);
    }

    let left = || SecretEnv { limit: until.saturating_duration_since(Instant::now()), ..env.clone() };
    let configured = obtain(&oauth.refresh_token, whose, &left());
    let configured = configured.map_err(|why| NoSecret::Within("refresh_token", Box::new(why)))?;
    let client_secret = client_secret(oauth, whose, &left())?;
    let origin = hex(configured.dangerous_expose());
    let descended = kept.filter(|kept| kept.origin == origin).and_then(|kept| kept.refresh);
    let refresh = descended.clone().unwrap_or(configured);

    let secrets = [Some(&refresh), client_secret.as_ref()];
    let form = refreshing(oauth, &refresh, client_secret.as_ref());
    let answer = (env.post)(&Post { oauth, form: &form, until }).map_err(|why| refused(oauth, printable(&why)))?;
    let granted = understand(&answer).map_err(|why| refused(oauth, shown(&why, &secrets)))?;

    let rotated = granted.refresh.filter(|new| new.dangerous_expose() != refresh.dangerous_expose());
    let kept = Kept {
        origin,
        expires: now() + granted.life,
        access: Some(granted.access.clone()),
        refresh: rotated.or(descended),
    };
    match turn.map(|turn| turn.write(&kept)) {
        Some(Err(why)) => not_kept(&why),
        None if shelf.is_none() => not_kept("there is neither a home nor a state directory"),
        Some(Ok(())) | None => {}
    }
    Ok(granted.access)
}

/// The client's secret, where it has one.
pub(super) fn client_secret(oauth: &OAuth, whose: &Identity<'_>, env: &SecretEnv) -> Result<Option<Secret>, NoSecret> {
    let secret = oauth.client_secret.as_ref().map(|source| obtain(source, whose, env)).transpose();
    secret.map_err(|why| NoSecret::Within("client_secret", Box::new(why)))
}

/// Forgets a token that a relay has refused. Where another one is kept by now, that stays.
pub(super) fn forget(oauth: &OAuth, whose: &Identity<'_>, env: &SecretEnv, token: &Secret) {
    let Some(shelf) = shelf(oauth, whose, env) else { return };
    let is_it =
        |kept: &Kept| kept.access.as_ref().is_some_and(|access| access.dangerous_expose() == token.dangerous_expose());
    let forgotten = shelf.turn(Instant::now() + env.limit).and_then(|turn| match turn {
        Some(turn) => match turn.read().filter(is_it) {
            Some(kept) => turn.write(&Kept { access: None, ..kept }),
            None => Ok(()),
        },
        None => Ok(()),
    });
    if let Err(why) = forgotten {
        not_kept(&why);
    }
}

/// Takes away what is kept for the user; whether there was something.
pub(super) fn clear(oauth: &OAuth, whose: &Identity<'_>, env: &SecretEnv) -> bool {
    shelf(oauth, whose, env).is_some_and(|shelf| shelf.clear())
}

/// Where the tokens of this user, this client and this purpose are kept.
fn shelf(oauth: &OAuth, whose: &Identity<'_>, env: &SecretEnv) -> Option<Shelf> {
    let scope = oauth.scope.as_deref().unwrap_or_default();
    let name = [&oauth.token_url.to_string(), &oauth.client_id, scope, whose.user].join("\0");
    Some(Shelf::new(env.state.as_ref()?.join("oauth"), &hex(name.as_bytes())[..32], env.uid))
}

/// The token that is kept, where it is good for a while.
fn fresh(kept: &Kept) -> Option<Secret> {
    let left = kept.expires.checked_sub(now())?;
    kept.access.clone().filter(|_| (MARGIN..=LONGEST_LIFE).contains(&left)).map(Secret::kept)
}

/// In seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs)
}

fn hex(octets: &[u8]) -> String {
    digest(&SHA256, octets).as_ref().iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().concat()
}

pub(super) fn refused(oauth: &OAuth, why: String) -> NoSecret {
    NoSecret::NoToken(oauth.token_url.authority(), why)
}

fn not_kept(why: &str) {
    tracing::warn!(message = "unable", reason = format!("an OAuth token cannot be kept: {why}"));
}

/// A stranger's words, safe to show, and without our secrets should he
/// repeat them: as they are, as he has read them in the form, or in base64.
pub(super) fn shown(words: &str, secrets: &[Option<&Secret>]) -> String {
    let mut words = words.to_owned();
    for secret in secrets.iter().flatten().map(|secret| secret.dangerous_expose()) {
        let (form, encoded) = (form(&[("", Some(secret))]), Zeroizing::new(STANDARD_NO_PAD.encode(secret)));
        // Of base64, without the digit that what stands behind has a part in.
        let forms = [&form[1..], &encoded.as_bytes()[..secret.len() * 8 / 6], secret];
        for form in forms {
            words = words.replace(&*String::from_utf8_lossy(form), "****");
        }
    }
    printable(&words)
}

/// The form of an exchange, RFC 6749 §6.
fn refreshing(oauth: &OAuth, refresh: &Secret, client_secret: Option<&Secret>) -> Zeroizing<Vec<u8>> {
    form(&[
        ("grant_type", Some(&b"refresh_token"[..])),
        ("client_id", Some(oauth.client_id.as_bytes())),
        ("client_secret", client_secret.map(Secret::dangerous_expose)),
        ("refresh_token", Some(refresh.dangerous_expose())),
        ("scope", oauth.scope.as_deref().map(str::as_bytes)),
    ])
}

/// `application/x-www-form-urlencoded`. Who we are goes into a
/// form too (RFC 6749 §2.3.1), which all the large providers take.
pub(super) fn form(pairs: &[(&str, Option<&[u8]>)]) -> Zeroizing<Vec<u8>> {
    let pairs = pairs.iter().filter_map(|&(name, value)| Some((name, value?)));
    // No octet becomes more than three, so that it does not grow and leave copies.
    let size = pairs.clone().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut form = Zeroizing::new(Vec::with_capacity(size));
    for (name, value) in pairs {
        if !form.is_empty() {
            form.push(b'&');
        }
        form.extend_from_slice(name.as_bytes());
        form.push(b'=');
        for &octet in value {
            if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
                form.push(octet);
            } else {
                form.extend_from_slice(format!("%{octet:02X}").as_bytes());
            }
        }
    }
    form
}

/// What was granted. The lives of tokens are in seconds.
pub(super) struct Granted {
    access: Secret,
    life: u64,
    pub refresh: Option<Secret>,
}

/// An endpoint's words, of both kinds (RFC 6749 §5.1, §5.2).
#[derive(Deserialize)]
struct Words<'a> {
    #[serde(borrow)]
    access_token: Option<Cow<'a, str>>,
    token_type: Option<String>,
    /// A number, which some write as a string.
    expires_in: Option<serde_json::Value>,
    #[serde(borrow)]
    refresh_token: Option<Cow<'a, str>>,
    error: Option<String>,
    error_description: Option<String>,
}

/// What an answer means. The error reads on after the endpoint's name; it is a stranger's text.
pub(super) fn understand(answer: &Answer) -> Result<Granted, String> {
    if answer.status / 100 == 3 {
        let place = answer.location.as_deref().unwrap_or("nowhere");
        return Err(format!("redirects us to {place}, and tokens are not carried on; correct token_url"));
    }
    let words = serde_json::from_slice::<Words<'_>>(&answer.body).ok();
    if answer.status != 200 {
        let code = words.as_ref().and_then(|words| words.error.clone());
        let said = words.and_then(|words| words.error_description).map(|said| format!(", \"{said}\""));
        let said = said.unwrap_or_default();
        return Err(match code.as_deref() {
            None => format!("answered with HTTP status {}", answer.status),
            Some("invalid_grant") => format!(
                "no longer takes the refresh token (invalid_grant{said}); log in again with pillarbox login --oauth, \
                 or put a new one where the old one is"
            ),
            Some(code @ ("invalid_client" | "unauthorized_client")) => {
                format!("does not know us ({code}{said}); check client_id and client_secret")
            }
            Some(code @ "invalid_scope") => format!("does not grant the scope ({code}{said}); check scope"),
            Some(code) => format!("refused ({code}{said})"),
        });
    }
    let words = words.ok_or("answered with something that is no token")?;
    if words.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("gave a token of a type that no relay takes".to_owned());
    }
    let token = |text: Cow<'_, str>| {
        let is_token = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_graphic());
        is_token.then(|| Secret::new(text.into_owned().into_bytes()))
    };
    let access = words.access_token.and_then(token).ok_or("answered without an access token")?;
    let life = words.expires_in.and_then(|life| life.as_u64().or_else(|| life.as_str()?.parse().ok()));
    Ok(Granted {
        access,
        life: life.unwrap_or(USUAL_LIFE).min(LONGEST_LIFE),
        refresh: words.refresh_token.and_then(token),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PasswordSource;
    use crate::config::{Consent, Tls, TokenUrl};
    use std::path::Path;

    fn oauth() -> OAuth {
        let token_url =
            TokenUrl { tls: Tls::Implicit, host: "token.example".to_owned(), port: 443, target: "/token".to_owned() };
        OAuth {
            token_url,
            scope: Some("https://mail.example/ offline".to_owned()),
            client_id: "box+1".to_owned(),
            client_secret: None,
            refresh_token: PasswordSource::Literal(Zeroizing::new("r-1".to_owned())),
            ca_file: None,
            pins: Vec::new(),
            consent: Consent::default(),
        }
    }

    fn env(state: Option<&Path>, post: fn(&Post<'_>) -> Result<Answer, String>) -> SecretEnv {
        let uid = nix::unistd::getuid().as_raw();
        let limit = Duration::from_secs(30);
        SecretEnv { credentials_directory: None, home: None, uid, limit, state: state.map(Into::into), post }
    }

    const ALICE: Identity<'_> = Identity { host: "smtp.example.com", user: "alice", first: "smtp.example.com" };

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, location: None, body: Zeroizing::new(body.as_bytes().to_vec()) }
    }

    fn text(secret: &Secret) -> &str {
        std::str::from_utf8(secret.dangerous_expose()).unwrap()
    }

    #[test]
    fn the_form_is_that_of_rfc_6749_and_nothing_breaks_out_of_it() {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        let written = refreshing(&oauth(), &secret("r&x=1 \u{e4}"), Some(&secret("s%=")));
        let expected = "grant_type=refresh_token&client_id=box%2B1&client_secret=s%25%3D\
            &refresh_token=r%26x%3D1%20%C3%A4&scope=https%3A%2F%2Fmail.example%2F%20offline";
        assert_eq!(std::str::from_utf8(&written).unwrap(), expected);
        assert!(!refreshing(&OAuth { scope: None, ..oauth() }, &secret("r"), None).ends_with(b"scope="));
    }

    #[test]
    fn an_answer_is_a_token_or_a_sentence() {
        let granted = |body: &str| understand(&answer(200, body));
        let rows = [
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":3599}"#, 3599, None),
            (r#"{"access_token":"a","token_type":"bearer","expires_in":"3599","scope":"x","id_token":[]}"#, 3599, None),
            (r#"{"access_token":"a","refresh_token":"r-2"}"#, USUAL_LIFE, Some("r-2")),
            (r#"{"access_token":"a","expires_in":99999999999}"#, LONGEST_LIFE, None),
            (r#"{"access_token":"\u0061","refresh_token":"","expires_in":-1}"#, USUAL_LIFE, None),
        ];
        for (body, life, refresh) in rows {
            let granted = granted(body).unwrap_or_else(|why| panic!("{body}: {why}"));
            assert_eq!((text(&granted.access), granted.life), ("a", life), "{body}");
            assert_eq!(granted.refresh.as_ref().map(text), refresh, "{body}");
        }
        for (status, body, part) in [
            (200, "", "no token"),
            (200, "<html>", "no token"),
            (200, "{}", "without an access token"),
            (200, r#"{"access_token":""}"#, "without an access token"),
            (200, r#"{"access_token":"a b"}"#, "without an access token"),
            (200, r#"{"access_token":"a\r\n"}"#, "without an access token"),
            (200, r#"{"access_token":5}"#, "no token"),
            (200, r#"{"access_token":"a","token_type":"mac"}"#, "of a type"),
            (400, r#"{"error":"invalid_grant"}"#, "(invalid_grant); log in again"),
            (400, r#"{"error":"invalid_grant","error_description":"expired"}"#, "(invalid_grant, \"expired\"); log in"),
            (401, r#"{"error":"invalid_client"}"#, "check client_id and client_secret"),
            (400, r#"{"error":"invalid_scope"}"#, "check scope"),
            (400, r#"{"error":"slow_down","error_description":"why"}"#, "refused (slow_down, \"why\")"),
            (503, "<html>", "HTTP status 503"),
            (302, "", "redirects us to nowhere"),
        ] {
            let why = understand(&answer(status, body)).err().unwrap_or_else(|| panic!("{body} was taken"));
            assert!(why.contains(part), "{body}: {why}");
        }
    }

    #[test]
    fn what_the_provider_says_is_escaped_and_holds_no_secret() {
        let post: fn(&Post<'_>) -> Result<Answer, String> =
            |_| Ok(answer(400, r#"{"error":"invalid_grant","error_description":"r-1 is \u001b[31m no more"}"#));
        let error = access_token(&oauth(), &ALICE, &env(None, post)).unwrap_err().to_string();
        let expected = "the token endpoint token.example no longer takes the refresh token (invalid_grant, \"**** is \
            \\x1b[31m no more\"); log in again with pillarbox login --oauth, or put a new one where the old one is";
        assert_eq!(error, expected);

        let secret = Secret::new(b"1//r&\xc3\xa4-secret".to_vec());
        let said =
            "refresh_token=1%2F%2Fr%26%C3%A4-secret&x=1//r&\u{e4}-secret MS8vcibDpC1zZWNyZXQ= MS8vcibDpC1zZWNyZXQ6eA==";
        assert_eq!(shown(said, &[Some(&secret)]), "refresh_token=****&x=**** ****Q= ****Q6eA==");
    }

    #[test]
    fn a_token_is_kept_until_a_minute_before_its_end() {
        let kept = |left: u64| Kept {
            origin: String::new(),
            expires: now() + left,
            access: Some(Secret::new(b"a".to_vec())),
            refresh: None,
        };
        for (left, is_fresh) in
            [(0, false), (30, false), (MARGIN + 30, true), (3600, true), (LONGEST_LIFE + 3600, false)]
        {
            assert_eq!(fresh(&kept(left)).is_some(), is_fresh, "{left}");
        }
        assert!(fresh(&Kept { access: None, ..kept(3600) }).is_none());
    }

    #[test]
    fn a_new_refresh_token_is_used_until_the_settings_name_another() {
        // Grants according to the refresh token that it is shown: r-1 becomes r-2, r-2 stays, n-1 becomes n-2.
        let post: fn(&Post<'_>) -> Result<Answer, String> = |post| {
            let form = String::from_utf8_lossy(post.form).into_owned();
            let shown = |token: &str| form.contains(&format!("refresh_token={token}&"));
            Ok(match () {
                () if shown("r-1") => answer(200, r#"{"access_token":"a-1","refresh_token":"r-2","expires_in":5}"#),
                () if shown("r-2") => answer(200, r#"{"access_token":"a-2","expires_in":5}"#),
                () if shown("n-1") => answer(200, r#"{"access_token":"b-1","refresh_token":"n-2","expires_in":3600}"#),
                () => answer(400, r#"{"error":"invalid_grant"}"#),
            })
        };
        let dir = tempfile::tempdir().unwrap();
        let env = env(Some(&dir.path().join("state")), post);
        let got = |oauth: &OAuth| {
            let token = access_token(oauth, &ALICE, &env).unwrap();
            (text(&token).to_owned(), token.is_kept)
        };
        assert_eq!(got(&oauth()), ("a-1".to_owned(), false));
        assert_eq!(got(&oauth()), ("a-2".to_owned(), false));
        assert_eq!(got(&oauth()), ("a-2".to_owned(), false));
        let again = OAuth { refresh_token: PasswordSource::Literal(Zeroizing::new("n-1".to_owned())), ..oauth() };
        assert_eq!(got(&again), ("b-1".to_owned(), false));
        assert_eq!(got(&again), ("b-1".to_owned(), true));

        // Refused: only that one is forgotten, and the new refresh token is not.
        forget(&again, &ALICE, &env, &Secret::new(b"other".to_vec()));
        assert_eq!(got(&again), ("b-1".to_owned(), true));
        forget(&again, &ALICE, &env, &Secret::new(b"b-1".to_vec()));
        let error = access_token(&again, &ALICE, &env).unwrap_err();
        assert!(error.to_string().contains("invalid_grant"), "n-2 was not shown: {error}");
    }
}
