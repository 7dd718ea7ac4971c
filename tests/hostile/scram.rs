//! A server that plays SCRAM-SHA-256, honestly or not. RFC 5802 §3, RFC 7677.

use crate::harm::PASSWORD;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{hmac, pbkdf2};
use std::num::NonZeroU32;

/// How it departs from the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Not at all.
    None,
    /// A nonce of its own.
    OtherNonce,
    /// Our nonce, and nothing of its own.
    BareNonce,
    /// So many iterations.
    Iterations(&'static str),
    /// A salt of so many octets.
    Salt(usize),
    /// A salt that is not base64.
    BadSalt,
    /// An extension that must be understood.
    Extension,
    /// A signature of somebody who does not know the password.
    BadSignature,
    /// Our own proof for its signature.
    Mirror,
    /// 235 without a signature.
    NoSignature,
    /// 235 at once.
    AtOnce,
    /// No, with an error that plays with the terminal and gives the password back.
    Error,
    /// One challenge after the other.
    Endless,
    /// What is no base64.
    Garbage,
    /// No attributes at all.
    Empty,
}

/// What the server says next.
pub fn says(heard: &[String], lie: Lie) -> String {
    let first = BASE64.decode(heard[0].split(' ').nth(2).unwrap_or_default()).unwrap_or_default();
    let first = String::from_utf8_lossy(&first).into_owned();
    let bare = first.splitn(3, ',').nth(2).unwrap_or_default().to_owned();
    let nonce = bare.split_once(",r=").map(|(_, nonce)| nonce.to_owned()).unwrap_or_default();
    let (nonce, salt, iterations) = match lie {
        Lie::OtherNonce => ("fyko+d2lbbFgONRv9qkxdawL".to_owned(), vec![7; 16], "4096"),
        Lie::BareNonce => (nonce, vec![7; 16], "4096"),
        Lie::Iterations(count) => (nonce + "server", vec![7; 16], count),
        Lie::Salt(length) => (nonce + "server", vec![7; length], "4096"),
        _ => (nonce + "server", vec![7; 16], "4096"),
    };
    let extension = if lie == Lie::Extension { "m=must," } else { "" };
    let encoded = if lie == Lie::BadSalt { "§$%".to_owned() } else { BASE64.encode(&salt) };
    let server_first = format!("{extension}r={nonce},s={encoded},i={iterations}");
    match (lie, heard.len()) {
        (Lie::AtOnce, 1) => return "235 2.7.0 welcome".to_owned(),
        (Lie::Garbage, 1) => return "334 \u{1b}[2J not base64".to_owned(),
        (Lie::Empty, 1) => return "334 ".to_owned(),
        (Lie::Endless, count) if count > 1 => return format!("334 {}", BASE64.encode(&server_first)),
        (_, 1) => return format!("334 {}", BASE64.encode(&server_first)),
        (Lie::NoSignature, _) => return "235 2.7.0 welcome".to_owned(),
        (Lie::Error, 2) => return format!("334 {}", BASE64.encode(format!("e=\u{1b}[2J{PASSWORD}"))),
        (Lie::Error, _) => return "535 5.7.8 no".to_owned(),
        (_, 2) => {}
        _ => return "235 2.7.0 welcome".to_owned(),
    }
    if heard[1] == "*" {
        return "501 5.7.0 called off".to_owned();
    }
    let last = String::from_utf8_lossy(&BASE64.decode(&heard[1]).unwrap_or_default()).into_owned();
    let (without_proof, proof) = last.split_once(",p=").unwrap_or_default();
    if lie == Lie::Mirror {
        return format!("334 {}", BASE64.encode(format!("v={proof}")));
    }
    let password = if lie == Lie::BadSignature { "somebody else's" } else { PASSWORD };
    let mut salted = [0; 32];
    // Whoever goes along with an absurd count has a wrong answer coming, and not in hours.
    let count = iterations.parse().ok().filter(|count| *count <= 100_000).and_then(NonZeroU32::new);
    let count = count.unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, count, &salt, password.as_bytes(), &mut salted);
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let key = sign(&salted, b"Server Key");
    let signature = sign(key.as_ref(), format!("{bare},{server_first},{without_proof}").as_bytes());
    format!("334 {}", BASE64.encode(format!("v={}", BASE64.encode(signature.as_ref()))))
}
