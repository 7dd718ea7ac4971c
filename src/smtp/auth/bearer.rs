//! XOAUTH2 and OAUTHBEARER: an access token in place of a password.
//!
//! A server that refuses the token says why in a challenge, in JSON, and its reply comes only when that has been
//! answered: XOAUTH2 by an empty line, OAUTHBEARER by %x01. Tokens expire within the hour; where a new one comes
//! from is `secret`'s affair. RFC 7628, RFC 6750 (what a token may consist of).

use super::{Credentials, decode, saslname};
use zeroize::Zeroizing;

/// One run of either.
pub(super) struct Bearer {
    /// Until it is sent.
    message: Option<Zeroizing<Vec<u8>>>,
    /// The answer to a refusal, which is given once.
    acknowledgement: Option<&'static [u8]>,
    complaint: Option<String>,
}

impl Bearer {
    pub(super) fn xoauth2(credentials: &Credentials<'_>) -> Result<Self, &'static str> {
        Self::begin(credentials, &format!("user={}\x01", credentials.user), b"")
    }

    pub(super) fn oauthbearer(credentials: &Credentials<'_>) -> Result<Self, &'static str> {
        let user = saslname(credentials.user);
        let head = match credentials.relay {
            Some((host, port)) => format!("n,a={user},\x01host={host}\x01port={port}\x01"),
            None => format!("n,a={user},\x01"),
        };
        Self::begin(credentials, &head, b"\x01")
    }

    fn begin(credentials: &Credentials<'_>, head: &str, acknowledgement: &'static [u8]) -> Result<Self, &'static str> {
        let token = credentials.secret.dangerous_expose();
        if credentials.user.contains('\x01') {
            return Err("a user name must not have a control character in it");
        }
        if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
            return Err("what was given as an access token is none: it is empty, or has spaces or line ends in it");
        }
        let parts = [head.as_bytes(), b"auth=Bearer ", token, b"\x01\x01"];
        let mut message = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        for part in parts {
            message.extend_from_slice(part);
        }
        Ok(Self { message: Some(message), acknowledgement: Some(acknowledgement), complaint: None })
    }

    pub(super) fn initial(&self) -> Option<&[u8]> {
        self.message.as_ref().map(|message| message.as_slice())
    }

    pub(super) fn initial_sent(&mut self) {
        self.message = None;
    }

    /// Takes the refusal and answers it; `None` when that was done before.
    pub(super) fn answer(&mut self, challenge: &str) -> Option<Zeroizing<Vec<u8>>> {
        let acknowledgement = self.acknowledgement.take()?;
        self.complaint = Some(decode(challenge).map_or_else(|| challenge.to_owned(), |octets| words(&octets)))
            .filter(|complaint| !complaint.is_empty());
        Some(acknowledgement.to_vec().into())
    }

    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }
}

/// `status=invalid_token scope=https://mail.example.org/`, or the text as it came where it is not such an object.
fn words(octets: &[u8]) -> String {
    let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(octets) else {
        return String::from_utf8_lossy(octets).into_owned();
    };
    let pairs = object.iter().map(|(key, value)| match value.as_str() {
        Some(text) => format!("{key}={text}"),
        None => format!("{key}={value}"),
    });
    pairs.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn credentials<'a>(user: &'a str, token: &str) -> Credentials<'a> {
        Credentials { user, secret: Secret::new(token.as_bytes().to_vec()), relay: Some(("server.example.com", 143)) }
    }

    #[test]
    fn the_example_of_rfc_7628() {
        let mut bearer =
            Bearer::oauthbearer(&credentials("user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="))
                .unwrap();
        let expected = b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01\
            auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
        assert_eq!(bearer.initial(), Some(&expected[..]));
        bearer.initial_sent();
        let challenge = "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NvcGUiOiJleGFtcGxlX3Njb3BlIiwib3BlbmlkLWNvbmZpZ3VyYX\
            Rpb24iOiJodHRwczovL2V4YW1wbGUuY29tLy53ZWxsLWtub3duL29wZW5pZC1jb25maWd1cmF0aW9uIn0=";
        assert_eq!(bearer.answer(challenge).unwrap().as_slice(), b"\x01");
        let complaint = "openid-configuration=https://example.com/.well-known/openid-configuration \
            scope=example_scope status=invalid_token";
        assert_eq!(bearer.complaint(), Some(complaint));
        assert!(bearer.answer(challenge).is_none());
    }

    #[test]
    fn the_example_of_google() {
        let mut bearer =
            Bearer::xoauth2(&credentials("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"))
                .unwrap();
        let expected =
            b"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\x01\x01";
        assert_eq!(bearer.initial(), Some(&expected[..]));
        bearer.initial_sent();
        let challenge =
            "eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIG1hYyIsInNjb3BlIjoiaHR0cHM6Ly9tYWlsLmdvb2dsZS5jb20vIn0K";
        assert!(bearer.answer(challenge).unwrap().is_empty());
        assert_eq!(bearer.complaint(), Some("schemes=bearer mac scope=https://mail.google.com/ status=401"));
    }

    #[test]
    fn names_and_tokens_cannot_break_out_of_the_message() {
        let bearer = Bearer::oauthbearer(&credentials("a,b=c", "t")).unwrap();
        assert!(bearer.initial().unwrap().starts_with(b"n,a=a=2Cb=3Dc,\x01"));
        for (user, token) in [("a\x01b", "t"), ("a", "t\x01"), ("a", "t u"), ("a", "t\n"), ("a", "")] {
            assert!(Bearer::xoauth2(&credentials(user, token)).is_err(), "{user:?} {token:?}");
            assert!(Bearer::oauthbearer(&credentials(user, token)).is_err(), "{user:?} {token:?}");
        }
    }

    #[test]
    fn a_refusal_in_any_form_is_understood() {
        for (challenge, complaint) in [
            ("eyJzdGF0dXMiOjQwMX0=", Some("status=401")),
            ("bm8gd2F5", Some("no way")),
            ("not base64!", Some("not base64!")),
            ("", None),
        ] {
            let mut bearer = Bearer::xoauth2(&credentials("u", "t")).unwrap();
            bearer.initial_sent();
            assert!(bearer.answer(challenge).is_some());
            assert_eq!(bearer.complaint(), complaint);
        }
    }
}
