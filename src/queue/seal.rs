//! The seal behind a letter's content: what tells a whole file from a cut, swapped or rotten one.
//!
//! The head says how long the content is; the seal says what head and content were: SHA-256 over all octets before it.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ring::digest::{Context, Digest, SHA256};

/// Octets of a seal's line: `\nseal `, 64 digits, `\n`.
pub(super) const LEN: u64 = 71;

/// The seal's line for a digest. It starts with a line end of its own, since content may end without one.
pub(super) fn line(digest: &Digest) -> String {
    format!("\nseal {}\n", hex(digest.as_ref()))
}

/// Whether the file bears the right seal behind its first `len`
/// octets. An error is an I/O error and says nothing of the seal.
pub(super) fn is_right(file: &File, len: u64) -> io::Result<bool> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = file.read_at(&mut buffer[..want], at)?;
        if got == 0 {
            return Ok(false);
        }
        context.update(&buffer[..got]);
        at += got as u64;
    }
    let right = line(&context.finish());
    let mut found = vec![0; right.len()];
    match file.read_exact_at(&mut found, len) {
        Ok(()) => Ok(found == right.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::digest::digest;
    use std::io::Write;

    #[test]
    fn a_changed_missing_or_extra_octet_breaks_the_seal() {
        let whole = |content: &[u8]| {
            let mut octets = content.to_vec();
            octets.extend_from_slice(line(&digest(&SHA256, content)).as_bytes());
            octets
        };
        let check = |octets: &[u8], len| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(octets).unwrap();
            is_right(&file, len).unwrap()
        };
        let octets = whole(b"letter\r\n");
        assert_eq!(octets.len() as u64, 8 + LEN);
        assert!(check(&octets, 8));
        assert!(check(&[&octets[..], b"records"].concat(), 8));
        assert!(!check(&octets, 7));
        for i in 0..octets.len() {
            let mut changed = octets.clone();
            changed[i] ^= 1;
            assert!(!check(&changed, 8), "octet {i} changed");
            assert!(!check(&octets[..i], 8), "cut to {i}");
        }
    }
}
