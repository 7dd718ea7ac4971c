//! Alias files: every name comes to an end, nothing is a program or a file, and every address can be sent to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::aliases::Aliases;
use pillarbox::message::address::parse_list;
use pillarbox_fuzz::is_harmless;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(":include:") && text.contains('/') {
        return; // it would open files
    }
    let (aliases, problems) = Aliases::of_text(text, 0);
    for name in text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().trim_matches('"')) {
        for one in parse_list(name).unwrap_or_default() {
            match aliases.resolve(&one, &|domain| domain == "localhost") {
                Ok(list) => {
                    assert!(!list.is_empty(), "{name} stands for nobody");
                    for mailbox in list.iter().filter_map(|one| one.to_mailbox("d.example").ok()) {
                        assert!(is_harmless(&mailbox.to_string()));
                    }
                }
                Err(told) => assert!(told.starts_with("the aliases lead") || !problems.is_empty(), "{told}"),
            }
        }
    }
});
