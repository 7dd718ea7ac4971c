//! A user's consent to our sending mail, which gives the refresh token that access tokens are exchanged for.
//!
//! Two ways: [`Device`] gives a code for a browser wherever there is one (RFC 8628); [`Browser`] leads
//! one on this machine to the provider and is told by it what came of that, at a port of loopback (RFC
//! 8252), with a proof that whoever redeems the code is who asked for it (PKCE, S256: RFC 7636) and a
//! word that nobody else knows, so that no other page can answer for the provider (`state`, RFC 6749
//! §10.12). Both end in a refresh token; the access token that comes with it is dropped, and had again
//! when there is a letter. Nothing here prints, listens or waits: that is the roof's.
//!
//! The provider's words are strangers' text: escaped, and with our secrets struck out.

use super::oauth::{client_secret, form, refused, shown, understand};
use super::{Answer, Identity, NoSecret, Post, Secret, SecretEnv};
use crate::config::{OAuth, TokenUrl};
use crate::outcome::printable;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use std::borrow::Cow;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Between two questions, where the provider does not say (RFC
/// 8628 §3.5); also what is added when it is asked too often.
const INTERVAL: Duration = Duration::from_secs(5);

/// What a consent is asked with.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// Whom to ask.
    pub oauth: &'a OAuth,
    /// Whose consent.
    pub whose: &'a Identity<'a>,
    /// Where the client's secret comes from, and who asks endpoints.
    pub env: &'a SecretEnv,
}

impl Client<'_> {
    /// Posts a form to an endpoint, together with who we are.
    fn post(self, url: &TokenUrl, pairs: &[(&str, Option<&[u8]>)], own: Option<&Secret>) -> Result<Answer, NoSecret> {
        let client = [
            ("client_id", Some(self.oauth.client_id.as_bytes())),
            ("client_secret", own.map(Secret::dangerous_expose)),
        ];
        let form = form(&[pairs, &client].concat());
        let oauth = OAuth { token_url: url.clone(), ..self.oauth.clone() };
        let until = Instant::now() + self.env.limit;
        let answer = (self.env.post)(&Post { oauth: &oauth, form: &form, until });
        answer.map_err(|why| refused(&oauth, printable(&why)))
    }

    fn client_secret(self) -> Result<Option<Secret>, NoSecret> {
        client_secret(self.oauth, self.whose, self.env)
    }

    /// The refresh token in an answer.
    fn granted(self, answer: &Answer, secrets: &[Option<&Secret>]) -> Result<Secret, NoSecret> {
        let refusal = serde_json::from_slice::<Refusal>(&answer.body).ok().filter(|_| answer.status != 200);
        if refusal.is_some_and(|refusal| refusal.error == "invalid_grant") {
            return Err(refused(self.oauth, "does not take the code (invalid_grant); begin again".to_owned()));
        }
        let granted = understand(answer).map_err(|why| refused(self.oauth, shown(&why, secrets)))?;
        granted.refresh.ok_or_else(|| {
            let why = "gave no refresh token; its scope must be one that lets us work while you are away";
            refused(self.oauth, why.to_owned())
        })
    }
}

/// A code that the user takes to a browser.
pub struct Device {
    code: Secret,
    /// What the user enters there; safe to show.
    pub user_code: String,
    /// Where; safe to show.
    pub place: String,
    /// The same with the code in it, where the provider has that.
    pub whole_place: Option<String>,
    /// How long to wait before each [`Device::poll`].
    pub interval: Duration,
    /// For how long the code is good.
    pub life: Duration,
}

/// RFC 8628 §3.2.
#[derive(Deserialize)]
struct Words<'a> {
    #[serde(borrow)]
    device_code: Cow<'a, str>,
    user_code: String,
    #[serde(alias = "verification_url")]
    verification_uri: String,
    #[serde(alias = "verification_url_complete")]
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Device {
    /// Asks for a code.
    pub fn ask(client: Client<'_>) -> Result<Self, NoSecret> {
        let url = client.oauth.consent.device_url.as_ref().ok_or_else(|| no_such_way(client, "device_url"))?;
        let at = OAuth { token_url: url.clone(), ..client.oauth.clone() };
        let own = client.client_secret()?;
        let scope = client.oauth.consent.scope.as_deref().map(str::as_bytes);
        let answer = client.post(url, &[("scope", scope)], own.as_ref())?;
        if answer.status != 200 {
            let why = understand(&answer).err().unwrap_or_else(|| "gave no code".to_owned());
            return Err(refused(&at, shown(&why, &[own.as_ref()])));
        }
        let words: Words<'_> = serde_json::from_slice(&answer.body)
            .map_err(|_| refused(&at, "answered with something that is no code".to_owned()))?;
        Ok(Self {
            user_code: printable(&words.user_code),
            place: printable(&words.verification_uri),
            whole_place: words.verification_uri_complete.as_deref().map(printable),
            interval: words.interval.map_or(INTERVAL, |seconds| Duration::from_secs(seconds.clamp(1, 60))),
            life: Duration::from_secs(words.expires_in.min(60 * 60)),
            code: Secret::new(words.device_code.into_owned().into_bytes()),
        })
    }

    /// Asks what has come of it: a refresh token, or nothing yet.
    pub fn poll(&mut self, client: Client<'_>) -> Result<Option<Secret>, NoSecret> {
        let own = client.client_secret()?;
        let pairs = [
            ("grant_type", Some(&b"urn:ietf:params:oauth:grant-type:device_code"[..])),
            ("device_code", Some(self.code.dangerous_expose())),
        ];
        let answer = client.post(&client.oauth.token_url, &pairs, own.as_ref())?;
        let refusal = serde_json::from_slice::<Refusal>(&answer.body).ok().filter(|_| answer.status != 200);
        match refusal.as_ref().map(|refusal| refusal.error.as_str()) {
            Some("authorization_pending") => Ok(None),
            Some("slow_down") => {
                self.interval += INTERVAL;
                Ok(None)
            }
            Some("access_denied") => Err(refused(client.oauth, "was told no by whoever entered the code".to_owned())),
            Some("expired_token") => {
                Err(refused(client.oauth, "has waited for the code in vain; ask again".to_owned()))
            }
            _ => client.granted(&answer, &[Some(&self.code), own.as_ref()]).map(Some),
        }
    }
}

/// A visit to the provider by a browser on this machine.
pub struct Browser {
    /// Where the browser goes.
    pub url: String,
    redirect: String,
    state: String,
    verifier: Secret,
}

/// What a request to our port means.
#[derive(Debug)]
pub enum Visit {
    /// It is for something else, an icon perhaps.
    Elsewhere,
    /// It answers for the provider without knowing what only the provider was told.
    Forged,
    /// The code to be redeemed.
    Code(Secret),
    /// The provider says no: its words, safe to show.
    Refused(String),
}

impl Browser {
    /// Prepares one that comes back to this port of loopback.
    pub fn new(client: Client<'_>, port: u16) -> Result<Self, NoSecret> {
        let consent = &client.oauth.consent;
        let auth_url = consent.auth_url.as_ref().ok_or_else(|| no_such_way(client, "auth_url"))?;
        let (state, verifier) = (random(client)?, random(client)?);
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        let redirect = format!("http://{}:{port}/", if consent.by_name { "localhost" } else { "127.0.0.1" });
        let query = form(&[
            ("response_type", Some(b"code")),
            ("client_id", Some(client.oauth.client_id.as_bytes())),
            ("redirect_uri", Some(redirect.as_bytes())),
            ("scope", consent.scope.as_deref().map(str::as_bytes)),
            ("state", Some(state.as_bytes())),
            ("code_challenge", Some(challenge.as_bytes())),
            ("code_challenge_method", Some(b"S256")),
            ("login_hint", Some(client.whose.user.as_bytes())),
        ]);
        let joint = if auth_url.target.contains('?') { '&' } else { '?' };
        // The form is ASCII.
        let url = format!("{auth_url}{joint}{}", String::from_utf8_lossy(&query));
        Ok(Self { url, redirect, state, verifier: Secret::new(verifier.into_bytes()) })
    }

    /// What a request for this target means.
    pub fn judge(&self, target: &str) -> Visit {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let field = |wanted: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| decoded(value)).next()
        };
        let (code, error) = (field("code"), field("error"));
        if path != "/" || (code.is_none() && error.is_none()) {
            return Visit::Elsewhere;
        }
        if field("state").is_none_or(|state| state.as_slice() != self.state.as_bytes()) {
            return Visit::Forged;
        }
        match (code, error) {
            (Some(code), None) => Visit::Code(Secret::new(code.to_vec())),
            (_, error) => {
                let words = [error, field("error_description")].into_iter().flatten();
                let words: Vec<String> = words.map(|word| printable(&String::from_utf8_lossy(&word))).collect();
                Visit::Refused(words.join(": "))
            }
        }
    }

    /// Exchanges the code for a refresh token.
    pub fn redeem(&self, client: Client<'_>, code: &Secret) -> Result<Secret, NoSecret> {
        let own = client.client_secret()?;
        let pairs = [
            ("grant_type", Some(&b"authorization_code"[..])),
            ("code", Some(code.dangerous_expose())),
            ("redirect_uri", Some(self.redirect.as_bytes())),
            ("code_verifier", Some(self.verifier.dangerous_expose())),
        ];
        let answer = client.post(&client.oauth.token_url, &pairs, own.as_ref())?;
        client.granted(&answer, &[Some(code), Some(&self.verifier), own.as_ref()])
    }
}

fn no_such_way(client: Client<'_>, key: &str) -> NoSecret {
    refused(client.oauth, format!("is all that is known of the provider; {key} is needed in the settings"))
}

/// 256 random bits, as RFC 7636 §4.1 wants them.
fn random(client: Client<'_>) -> Result<String, NoSecret> {
    let mut octets = Zeroizing::new([0; 32]);
    let filled = SystemRandom::new().fill(&mut *octets);
    filled.map_err(|_| refused(client.oauth, "is not asked: this system has no random numbers".to_owned()))?;
    Ok(URL_SAFE_NO_PAD.encode(*octets))
}

/// A value of a query, of which there are few octets.
fn decoded(text: &str) -> Zeroizing<Vec<u8>> {
    let mut octets = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let hex = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let hex = hex.filter(|two| two.bytes().all(|octet| octet.is_ascii_hexdigit()));
        match (first, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(octet)) => {
                octets.push(octet);
                rest = &behind[2..];
            }
            (octet, _) => {
                octets.push(if *octet == b'+' { b' ' } else { *octet });
                rest = behind;
            }
        }
    }
    octets
}

#[cfg(test)]
mod tests;
