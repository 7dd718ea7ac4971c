//! A server that plays SCRAM with alice, in each of its kinds, honestly or not; and what can be made of her password.
//! RFC 5802 §3, RFC 7677.

use crate::marks::PASSWORD;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;

/// The names of the mechanisms.
pub const KINDS: [&str; 4] = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"];

const SALT: [u8; 16] = *b"sixteen of salt.";
const COUNT: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// How it departs from the truth.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Not at all.
    None,
    /// It has another password, and gives back what it was sent.
    OtherPassword,
    /// Its signature is of somebody who does not know the password.
    BadSignature,
    /// 235 without a signature.
    NoSignature,
    /// An error that has the password in it.
    Error,
    /// So few iterations that the proof would give the password away.
    FewIterations,
    /// A nonce of its own.
    OtherNonce,
    /// One challenge after the other, each with the password.
    Endless,
}

/// What a password becomes: all that is worth as much as itself.
struct Keys {
    salted: Vec<u8>,
    client: Vec<u8>,
    stored: Vec<u8>,
    server: Vec<u8>,
}

fn sign(hash: hmac::Algorithm, key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hash, key), text).as_ref().to_vec()
}

/// The hash that a mechanism's name has in it.
fn hash(kind: &str) -> hmac::Algorithm {
    if kind.contains("SHA-256") { hmac::HMAC_SHA256 } else { hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY }
}

impl Keys {
    fn of(kind: &str, password: &str) -> Self {
        let hash = hash(kind);
        let derive = if kind.contains("SHA-256") { pbkdf2::PBKDF2_HMAC_SHA256 } else { pbkdf2::PBKDF2_HMAC_SHA1 };
        let mut salted = vec![0; hash.digest_algorithm().output_len()];
        pbkdf2::derive(derive, COUNT, &SALT, password.as_bytes(), &mut salted);
        let (client, server) = (sign(hash, &salted, b"Client Key"), sign(hash, &salted, b"Server Key"));
        let stored = digest::digest(hash.digest_algorithm(), &client).as_ref().to_vec();
        Self { salted, client, stored, server }
    }
}

/// All that is derived from a password for this server, by its name.
pub fn derived(password: &str) -> Vec<(String, Vec<u8>)> {
    let of = |kind: &str| {
        let keys = Keys::of(kind, password);
        let named = [("SaltedPassword", keys.salted), ("ClientKey", keys.client), ("StoredKey", keys.stored)];
        let all = named.into_iter().chain([("ServerKey", keys.server)]);
        all.map(|(name, key)| (format!("{kind}'s {name}"), key)).collect::<Vec<_>>()
    };
    [of("SCRAM-SHA-1"), of("SCRAM-SHA-256")].concat()
}

/// What the server says next.
pub fn says(heard: &[String], lie: Lie) -> String {
    let challenge = |text: &str| format!("334 {}", BASE64.encode(text));
    let text = |line: &str| String::from_utf8_lossy(&BASE64.decode(line).unwrap_or_default()).into_owned();
    let mut words = heard[0].split(' ').skip(1);
    let (kind, first) = (words.next().unwrap_or_default(), text(words.next().unwrap_or_default()));
    let bare = first.splitn(3, ',').nth(2).unwrap_or_default();
    let nonce = bare.split_once(",r=").map(|(_, nonce)| nonce).unwrap_or_default();
    let nonce = if lie == Lie::OtherNonce { "fyko+d2lbbFgONRv9qkxdawL".to_owned() } else { format!("{nonce}server") };
    let count = if lie == Lie::FewIterations { 1 } else { COUNT.get() };
    let server_first = format!("r={nonce},s={},i={count}", BASE64.encode(SALT));
    let last = match heard {
        [_] => return challenge(&server_first),
        [.., last] if last == "*" => return "501 5.7.0 called off".to_owned(),
        [_, last] => text(last),
        _ if lie == Lie::Error => return format!("535 5.7.8 {PASSWORD}"),
        _ if lie == Lie::Endless => return challenge(PASSWORD),
        _ => return "235 2.7.0 welcome".to_owned(),
    };
    let (without_proof, proof) = last.split_once(",p=").unwrap_or_default();
    let password = if matches!(lie, Lie::OtherPassword | Lie::BadSignature) { "somebody else's" } else { PASSWORD };
    let (hash, keys) = (hash(kind), Keys::of(kind, password));
    let authentication = format!("{bare},{server_first},{without_proof}");
    let proof = BASE64.decode(proof).unwrap_or_default();
    let signature = sign(hash, &keys.stored, authentication.as_bytes());
    let client: Vec<u8> = proof.iter().zip(&signature).map(|(proof, sign)| proof ^ sign).collect();
    let knows = digest::digest(hash.digest_algorithm(), &client).as_ref() == keys.stored;
    match lie {
        Lie::NoSignature => return "235 2.7.0 welcome".to_owned(),
        Lie::Error => return challenge(&format!("e=other-error {PASSWORD}")),
        Lie::Endless => return challenge(PASSWORD),
        Lie::BadSignature => {}
        _ if !knows => return format!("535 5.7.8 {PASSWORD}, {}, no", heard[1]),
        _ => {}
    }
    let signature = sign(hash, &keys.server, authentication.as_bytes());
    challenge(&format!("v={}", BASE64.encode(signature)))
}
