//! SCRAM: both ends prove that they know the password, and neither shows it.
//!
//! It refuses a server nonce that does not extend ours (a replay), an iteration count below
//! [`MIN_ITERATIONS`] (it would make the proof easy to guess passwords by) or above [`MAX_ITERATIONS`] (it would
//! burn our time), an extension it must understand and doesn't, and a server whose signature is wrong. Until
//! that signature has been verified, [`Scram::is_proved`] is false and no 235 counts.
//!
//! Names and passwords go through `SASLprep`. What it has no form for (control characters, and code points
//! younger than Unicode 3.2, such as most emoji) goes as it is: a server that prepares strings cannot have stored
//! such a password, one that does not will know it, and the worst is a refusal.
//!
//! What is derived from the password is wiped, but for the states inside ring's HMAC keys, which it keeps to
//! itself and on the stack. RFC 5802 (SHA-1), RFC 7677 (SHA-256), RFC 4013 (`SASLprep`), RFC 5801 §4 (GS2 header).

use super::{Channel, Credentials, decode, not_base64, saslname};
use crate::outcome::Cause;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// What RFC 7677 §4 asks of a server at the least.
pub const MIN_ITERATIONS: u32 = 4096;
/// Some two seconds of a processor's time. Servers in use ask for less than a tenth of it.
pub const MAX_ITERATIONS: u32 = 10_000_000;

/// The hash function, which gives the mechanism its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SCRAM-SHA-1",
            Self::Sha256 => "SCRAM-SHA-256",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        self.hmac().digest_algorithm()
    }

    fn keyed(self, key: &[u8], message: &[u8]) -> Octets {
        octets(hmac::sign(&hmac::Key::new(self.hmac(), key), message).as_ref())
    }
}

type Octets = Zeroizing<Vec<u8>>;

fn octets(octets: &[u8]) -> Octets {
    Zeroizing::new(octets.to_vec())
}

/// One run.
pub(super) struct Scram {
    hash: Hash,
    password: Octets,
    nonce: String,
    /// What the GS2 header says and, where bound, the octets of the binding: what `c=` repeats.
    bound: Vec<u8>,
    /// The client-first-message, header included, and where its bare part begins.
    first: String,
    bare: usize,
    state: State,
}

enum State {
    /// Nothing has been said.
    Fresh,
    /// The client-first-message is out.
    Greeted,
    /// The proof is out; the server must answer with this signature.
    Proving(Octets),
    /// It did.
    Proved,
    /// It said why it refuses.
    Refused(String),
}

impl Scram {
    pub(super) fn begin(hash: Hash, credentials: &Credentials<'_>, channel: Channel) -> Result<Self, &'static str> {
        let mut random = [0; 18];
        SystemRandom::new().fill(&mut random).map_err(|_| "the system has no random numbers for us")?;
        Ok(Self::with_nonce(hash, credentials, channel, BASE64_STANDARD.encode(random)))
    }

    fn with_nonce(hash: Hash, credentials: &Credentials<'_>, channel: Channel, nonce: String) -> Self {
        let (flag, data) = match channel {
            Channel::Unbindable => ("n".to_owned(), Vec::new()),
            Channel::Unbound => ("y".to_owned(), Vec::new()),
            Channel::Bound(binding) => (format!("p={}", binding.name), binding.data),
        };
        let header = format!("{flag},,");
        let user = saslname(&String::from_utf8_lossy(&prepare(credentials.user.as_bytes())));
        Self {
            hash,
            password: prepare(credentials.secret.dangerous_expose()),
            first: format!("{header}n={user},r={nonce}"),
            bare: header.len(),
            bound: [header.into_bytes(), data].concat(),
            nonce,
            state: State::Fresh,
        }
    }

    pub(super) fn initial(&self) -> Option<&[u8]> {
        matches!(self.state, State::Fresh).then_some(self.first.as_bytes())
    }

    pub(super) fn initial_sent(&mut self) {
        self.state = State::Greeted;
    }

    /// The answer to a challenge; `None` when there is nothing left to say.
    pub(super) fn answer(&mut self, challenge: &str) -> Option<Result<Octets, Cause>> {
        if !matches!(self.state, State::Greeted | State::Proving(_)) {
            return None;
        }
        let name = self.hash.name();
        let said = match decode(challenge).map(String::from_utf8) {
            Some(Ok(said)) => said,
            Some(Err(_)) => return Some(Err(Cause::Protocol(format!("sent a {name} challenge that is not text")))),
            None => return Some(Err(not_base64(name))),
        };
        if let Some(why) = said.strip_prefix("e=") {
            self.state = State::Refused(why.to_owned());
            return Some(Ok(Octets::default()));
        }
        if let State::Proving(signature) = &self.state {
            if !is_signature(&said, signature) {
                let text = format!("does not know the password that it asks for: its {name} signature is wrong");
                return Some(Err(Cause::Protocol(text)));
            }
            self.state = State::Proved;
            return Some(Ok(Octets::default()));
        }
        Some(self.prove(&said))
    }

    /// Answers the server-first-message.
    fn prove(&mut self, server_first: &str) -> Result<Octets, Cause> {
        let name = self.hash.name();
        let (nonce, salt, iterations) =
            parse(server_first).map_err(|why| Cause::Protocol(format!("{why} in {name}")))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Cause::Protocol(format!("did not extend our {name} nonce: this may be a replay")));
        }
        let iterations = NonZeroU32::new(iterations)
            .filter(|iterations| (MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations.get()))
            .ok_or_else(|| {
                Cause::Policy(format!(
                    "asks for {iterations} iterations of {name}, and we do {MIN_ITERATIONS} to {MAX_ITERATIONS}: fewer \
                     would give the password away, more would be a waste of our time"
                ))
            })?;

        let hash = self.hash;
        let mut salted = Zeroizing::new(vec![0; hash.digest().output_len()]);
        pbkdf2::derive(hash.pbkdf2(), iterations, &salt, &self.password, &mut salted);
        let client_key = hash.keyed(&salted, b"Client Key");
        let stored_key = octets(digest::digest(hash.digest(), &client_key).as_ref());
        let server_key = hash.keyed(&salted, b"Server Key");

        let without_proof = format!("c={},r={nonce}", BASE64_STANDARD.encode(&self.bound));
        let authentication = format!("{},{server_first},{without_proof}", &self.first[self.bare..]);
        let client_signature = hash.keyed(&stored_key, authentication.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(client_signature.iter()).map(|(key, sign)| key ^ sign).collect();
        let proof = Zeroizing::new(BASE64_STANDARD.encode(Zeroizing::new(proof)));
        self.state = State::Proving(hash.keyed(&server_key, authentication.as_bytes()));

        let parts = [without_proof.as_bytes(), b",p=", proof.as_bytes()];
        let mut message = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        for part in parts {
            message.extend_from_slice(part);
        }
        Ok(message)
    }

    /// Whether the server has shown that it knows the password.
    pub(super) fn is_proved(&self) -> bool {
        matches!(self.state, State::Proved)
    }

    pub(super) fn complaint(&self) -> Option<&str> {
        match &self.state {
            State::Refused(why) => Some(why),
            State::Fresh | State::Greeted | State::Proving(_) | State::Proved => None,
        }
    }

    /// The server-final-message of a server that knows the password. Together with the rest of the dialogue it
    /// lets passwords be guessed.
    pub(super) fn unspeakable(&self) -> Option<Octets> {
        match &self.state {
            State::Proving(signature) => Some(octets(format!("v={}", BASE64_STANDARD.encode(signature)).as_bytes())),
            State::Fresh | State::Greeted | State::Proved | State::Refused(_) => None,
        }
    }
}

fn prepare(text: &[u8]) -> Octets {
    match std::str::from_utf8(text).ok().and_then(|text| stringprep::saslprep(text).ok()) {
        Some(prepared) => octets(prepared.as_bytes()),
        None => octets(text),
    }
}

/// Nonce, salt and iteration count. Extensions behind them are for others to understand, one before them (`m=`)
/// for us.
fn parse(server_first: &str) -> Result<(&str, Vec<u8>, u32), &'static str> {
    let mut parts = server_first.split(',');
    let mut value = |key: &str| parts.next().and_then(|part| part.strip_prefix(key));
    let nonce = value("r=").ok_or("sent no nonce, or demands an extension that we do not have,")?;
    let salt = value("s=").and_then(decode).filter(|salt| !salt.is_empty()).ok_or("sent no salt")?;
    let iterations = value("i=").filter(|count| count.bytes().all(|digit| digit.is_ascii_digit()));
    let iterations = iterations.filter(|count| !count.is_empty()).ok_or("sent no iteration count")?;
    // A count that does not fit is too large, whatever it is.
    Ok((nonce, salt, iterations.parse().unwrap_or(u32::MAX)))
}

/// Whether a server-final-message carries that signature. No early end, as a matter of hygiene.
fn is_signature(server_final: &str, signature: &[u8]) -> bool {
    let said = server_final.strip_prefix("v=").and_then(|rest| decode(rest.split(',').next().unwrap_or_default()));
    said.is_some_and(|said| {
        said.len() == signature.len() && said.iter().zip(signature).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    })
}

#[cfg(test)]
mod tests {
    use super::super::Binding;
    use super::*;
    use crate::secret::Secret;

    fn start(hash: Hash, user: &str, password: &str, channel: Channel, nonce: &str) -> Scram {
        let credentials = Credentials { user, secret: Secret::new(password.as_bytes().to_vec()), relay: None };
        Scram::with_nonce(hash, &credentials, channel, nonce.to_owned())
    }

    fn first(scram: &mut Scram) -> String {
        let first = String::from_utf8(scram.initial().unwrap().to_vec()).unwrap();
        scram.initial_sent();
        first
    }

    fn answer(scram: &mut Scram, challenge: &str) -> Result<String, Cause> {
        let answer = scram.answer(&BASE64_STANDARD.encode(challenge)).expect("something left to say");
        answer.map(|octets| String::from_utf8(octets.to_vec()).unwrap())
    }

    struct Vector {
        hash: Hash,
        nonce: &'static str,
        server_first: &'static str,
        client_final: &'static str,
        server_final: &'static str,
    }

    /// RFC 5802 §5 and RFC 7677 §3, both of the user `user` with the password `pencil`.
    const VECTORS: [Vector; 2] = [
        Vector {
            hash: Hash::Sha1,
            nonce: "fyko+d2lbbFgONRv9qkxdawL",
            server_first: "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            client_final: "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            server_final: "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        },
        Vector {
            hash: Hash::Sha256,
            nonce: "rOprNGfwEbeRWgbNEkqO",
            server_first: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            client_final: "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                           p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            server_final: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        },
    ];

    #[test]
    fn the_examples_of_rfc_5802_and_rfc_7677() {
        for vector in VECTORS {
            let mut scram = start(vector.hash, "user", "pencil", Channel::Unbindable, vector.nonce);
            assert_eq!(first(&mut scram), format!("n,,n=user,r={}", vector.nonce));
            assert_eq!(answer(&mut scram, vector.server_first).as_deref(), Ok(vector.client_final));
            assert_eq!(scram.unspeakable().unwrap().as_slice(), vector.server_final.as_bytes());
            assert!(!scram.is_proved());
            assert_eq!(answer(&mut scram, vector.server_final).as_deref(), Ok(""));
            assert!(scram.is_proved());
            assert!(scram.answer("").is_none());
        }
    }

    #[test]
    fn a_wrong_signature_proves_nothing() {
        for signature in ["v=rmF9pqV8S7suAoZWja4dJRkFsKR=", "v=", "v=rmF9", "rmF9pqV8S7suAoZWja4dJRkFsKQ=", "", "x"] {
            let mut scram = start(Hash::Sha1, "user", "pencil", Channel::Unbindable, VECTORS[0].nonce);
            first(&mut scram);
            answer(&mut scram, VECTORS[0].server_first).unwrap();
            assert!(matches!(answer(&mut scram, signature), Err(Cause::Protocol(_))), "{signature}");
            assert!(!scram.is_proved());
        }
    }

    #[test]
    fn a_challenge_that_could_do_harm_is_not_answered() {
        let salt = "s=QSXCR+Q6sek8bf92";
        for (challenge, why) in [
            (format!("r=nonce,{salt},i=4096"), "did not extend our SCRAM-SHA-256 nonce: this may be a replay"),
            (format!("r=noncx123,{salt},i=4096"), "did not extend our SCRAM-SHA-256 nonce: this may be a replay"),
            (format!("r=nonce123,{salt},i=1"), "asks for 1 iterations"),
            (format!("r=nonce123,{salt},i=0"), "asks for 0 iterations"),
            (format!("r=nonce123,{salt},i=4095"), "asks for 4095 iterations"),
            (format!("r=nonce123,{salt},i=10000001"), "asks for 10000001 iterations"),
            (format!("r=nonce123,{salt},i=99999999999999999999"), "asks for 4294967295 iterations"),
            (format!("r=nonce123,{salt},i=-1"), "sent no iteration count in"),
            (format!("r=nonce123,{salt},i=+4096"), "sent no iteration count in"),
            (format!("r=nonce123,{salt}"), "sent no iteration count in"),
            ("r=nonce123,s=,i=4096".to_owned(), "sent no salt in"),
            ("r=nonce123,s=*,i=4096".to_owned(), "sent no salt in"),
            (format!("m=magic,r=nonce123,{salt},i=4096"), "sent no nonce, or demands an extension"),
            (String::new(), "sent no nonce"),
        ] {
            let mut scram = start(Hash::Sha256, "user", "pencil", Channel::Unbindable, "nonce");
            first(&mut scram);
            let said = answer(&mut scram, &challenge).unwrap_err().to_string();
            assert!(said.starts_with(why), "{challenge}: {said}");
        }
        let mut scram = start(Hash::Sha256, "user", "pencil", Channel::Unbindable, "nonce");
        first(&mut scram);
        let said = scram.answer("?").unwrap().unwrap_err().to_string();
        assert_eq!(said, "sent a SCRAM-SHA-256 challenge that is not base64");
    }

    #[test]
    fn extensions_that_we_need_not_understand_are_let_pass() {
        let mut scram = start(Hash::Sha1, "user", "pencil", Channel::Unbindable, "nonce");
        first(&mut scram);
        assert!(answer(&mut scram, "r=nonce1,s=QSXCR+Q6sek8bf92,i=4096,x=y").is_ok());
        let signature = String::from_utf8(scram.unspeakable().unwrap().to_vec()).unwrap();
        assert!(answer(&mut scram, &format!("{signature},x=y")).is_ok());
    }

    #[test]
    fn the_header_says_what_the_channel_is() {
        let bound = Channel::Bound(Binding { name: "tls-exporter", data: b"data".to_vec() });
        for (channel, header, repeated) in [
            (Channel::Unbindable, "n,,", "c=biws,"),
            (Channel::Unbound, "y,,", "c=eSws,"),
            (bound, "p=tls-exporter,,", "c=cD10bHMtZXhwb3J0ZXIsLGRhdGE=,"),
        ] {
            let mut scram = start(Hash::Sha256, "user", "pencil", channel, "nonce");
            assert_eq!(first(&mut scram), format!("{header}n=user,r=nonce"));
            let proof = answer(&mut scram, "r=nonce1,s=QSXCR+Q6sek8bf92,i=4096").unwrap();
            assert!(proof.starts_with(repeated), "{proof}");
        }
    }

    #[test]
    fn a_refusal_is_taken_note_of() {
        let mut scram = start(Hash::Sha256, "user", "pencil", Channel::Unbindable, "nonce");
        first(&mut scram);
        assert_eq!(answer(&mut scram, "e=unknown-user").as_deref(), Ok(""));
        assert_eq!(scram.complaint(), Some("unknown-user"));
        assert!(!scram.is_proved());
        assert!(scram.answer("").is_none());
    }

    #[test]
    fn names_and_passwords_are_prepared_where_that_is_possible() {
        // The examples of RFC 4013 §3, then what it has no form for.
        for (given, prepared) in [
            ("I\u{ad}X", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u{aa}", "a"),
            ("\u{2168}", "IX"),
            ("a\u{a0}b", "a b"),
            ("\u{7}", "\u{7}"),
            ("\u{627}1", "\u{627}1"),
            ("\u{1f511}", "\u{1f511}"),
        ] {
            assert_eq!(prepare(given.as_bytes()).as_slice(), prepared.as_bytes(), "{given:?}");
        }
        assert_eq!(prepare(b"\xff\xfe").as_slice(), b"\xff\xfe");
        let mut scram = start(Hash::Sha256, "\u{2168},=", "pencil", Channel::Unbindable, "nonce");
        assert_eq!(first(&mut scram), "n,,n=IX=2C=3D,r=nonce");
    }

    #[test]
    fn no_two_runs_have_the_same_nonce() {
        let credentials = Credentials { user: "u", secret: Secret::new(b"p".to_vec()), relay: None };
        let nonce = || Scram::begin(Hash::Sha256, &credentials, Channel::Unbindable).map(|scram| scram.nonce).unwrap();
        assert_ne!(nonce(), nonce());
    }
}
