//! The msmtprc: settings, or sentences with their places; no password in either.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::config::fuzz::of_msmtprc;
use pillarbox::config::msmtprc::Surroundings;
use pillarbox_fuzz::config::{check_settings, check_wrong};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let around = Surroundings { home: Some("/home/alice".into()), login: "alice".into(), ..Surroundings::default() };
    match of_msmtprc(&text, &around) {
        Ok(settings) => check_settings(&text, &settings),
        Err(wrong) => check_wrong(&text, &wrong),
    }
});
