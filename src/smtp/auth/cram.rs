//! CRAM-MD5: the password as the key of an HMAC over the server's challenge.
//!
//! HMAC-MD5 itself is not broken, but the server must know the password and proves nothing. RFC 2195, RFC 2104.

use crate::secret::wipe_stack;
use std::fmt::Write;
use zeroize::Zeroizing;

/// The octets that MD5 digests at a time.
const BLOCK: usize = 64;

/// `USER DIGEST`.
pub(super) fn response(user: &str, password: &[u8], challenge: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(format!("{user} "));
    text.reserve(32);
    for octet in hmac_md5(password, challenge) {
        let _ = write!(text, "{octet:02x}");
    }
    Zeroizing::new(text.as_bytes().to_vec())
}

fn hmac_md5(key: &[u8], message: &[u8]) -> [u8; 16] {
    let mut block = Zeroizing::new([0; BLOCK]);
    if key.len() > BLOCK {
        block[..16].copy_from_slice(&md5::compute(key).0);
        wipe_stack();
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8, message: &[u8]| {
        let octets: Vec<u8> = block.iter().map(|octet| octet ^ pad).chain(message.iter().copied()).collect();
        md5::compute(Zeroizing::new(octets).as_slice()).0
    };
    padded(0x5c, &padded(0x36, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_2195() {
        let answer = response("tim", b"tanstaaftanstaaf", b"<1896.697170952@postoffice.reston.mci.net>");
        assert_eq!(answer.as_slice(), b"tim b913a602c7eda7a495b4e6e7334d3890");
    }

    #[test]
    fn the_vectors_of_rfc_2202() {
        for (key, message, expected) in [
            (&[0x0b; 16][..], &b"Hi There"[..], "9294727a3638bb1c13f48ef8158bfc9d"),
            (b"Jefe", b"what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738"),
            (
                &[0xaa; 80],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd",
            ),
        ] {
            let hex = hmac_md5(key, message).iter().fold(String::new(), |hex, octet| format!("{hex}{octet:02x}"));
            assert_eq!(hex, expected);
        }
    }
}
