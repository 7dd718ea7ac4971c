//! The mailrc: settings, or sentences with their places; no loop without end and no password shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::config::fuzz::of_mailrc;
use pillarbox_fuzz::Tape;
use pillarbox_fuzz::config::{check_settings, check_wrong};

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape(data);
    let (text, sourced) = (tape.text(), tape.text());
    match of_mailrc(&text, &sourced) {
        Ok(Some(settings)) => check_settings(&format!("{text}{sourced}"), &settings),
        Ok(None) => {}
        Err(wrong) => check_wrong(&text, &wrong),
    }
});
