//! The TOML configuration: settings, or sentences with their places; no password in either.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::config::fuzz::of_toml;
use pillarbox_fuzz::config::{check_settings, check_wrong};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match of_toml(text) {
        Ok(settings) => check_settings(text, &settings),
        Err(wrong) => check_wrong(text, &wrong),
    }
});
