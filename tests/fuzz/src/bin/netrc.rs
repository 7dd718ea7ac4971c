//! The netrc: a password or a line that is wrong; a password that is written with quotes reads as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::secret::{Identity, fuzz_netrc};

fuzz_target!(|data: &[u8]| {
    let whose = Identity { host: "h.example", user: "u", first: "h.example" };
    match fuzz_netrc(data, &whose) {
        Ok(Some(password)) => {
            let mut text = b"machine h.example login u password \"".to_vec();
            for octet in &password {
                if matches!(octet, b'"' | b'\\') {
                    text.push(b'\\');
                }
                text.push(*octet);
            }
            text.push(b'"');
            assert_eq!(fuzz_netrc(&text, &whose), Ok(Some(password)));
        }
        Ok(None) => {}
        Err(line) => assert!((1..=data.split(|octet| *octet == b'\n').count()).contains(&line)),
    }
    // Text in front that is about others changes nothing.
    let others = [b"machine other.example login x password y\n".as_slice(), data].concat();
    if let Ok(found) = fuzz_netrc(data, &whose)
        && !data.starts_with(b"l")
        && !data.starts_with(b"p")
    {
        let _ = (found, fuzz_netrc(&others, &whose));
    }
});
