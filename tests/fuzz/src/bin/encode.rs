//! Encoding: seven bits are seven bits, short lines are short, and a size is what is sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::message::{LoneDot, Message};
use pillarbox_fuzz::{is_canonical, message, octets};

fn check(message: &Message) -> Vec<u8> {
    let octets = octets(message);
    assert_eq!(octets.len() as u64, message.size());
    assert!(is_canonical(&octets) && !octets.contains(&0));
    octets
}

fuzz_target!(|data: &[u8]| {
    let Some(message) = message(data, usize::MAX, LoneDot::IsText) else { return };
    // A conversion says so in these.
    let ours = ["content-transfer-encoding", "mime-version", "content-type"];
    let names = |message: &Message| -> Vec<String> {
        let names = message.fields().iter().map(|field| field.name().to_ascii_lowercase());
        names.filter(|name| !ours.contains(&name.as_str())).collect()
    };
    if let Ok(seven) = message.for_7bit() {
        assert!(check(&seven).is_ascii(), "it is said to be in seven bits");
        assert!(!seven.is_8bit());
        assert_eq!(names(&seven), names(&message), "no field comes or goes");
    }
    let short = message.clone().with_short_lines();
    let octets = check(&short);
    assert_eq!(names(&short), names(&message), "no field comes or goes");
    if !short.facts().long_line {
        let body = &octets[usize::try_from(short.header_len()).unwrap()..];
        assert!(body.split(|octet| *octet == b'\n').all(|line| line.len() <= 999), "a line is long still");
    }
});
