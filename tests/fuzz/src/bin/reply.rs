//! Replies of a server: any split reads the same, and no bound is exceeded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::outcome::{Reply, printable};
use pillarbox::smtp::reply::{BadReply, MAX_LINE, MAX_LINES, MAX_REPLY, Replies};
use pillarbox_fuzz::{Tape, is_harmless};

fn read(octets: &[u8], piece: usize) -> Result<(Vec<Reply>, Vec<u8>), BadReply> {
    let (mut replies, mut found) = (Replies::default(), Vec::new());
    for piece in octets.chunks(piece.max(1)) {
        replies.push(piece);
        while let Some(reply) = replies.take()? {
            found.push(reply);
        }
        assert!(replies.len() < MAX_LINE, "{} octets are kept", replies.len());
        assert_eq!(replies.rest().len(), replies.len());
    }
    Ok((found, replies.rest().to_vec()))
}

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape(data);
    let piece = usize::from(tape.octet());
    let octets = tape.0;
    let whole = read(octets, usize::MAX);
    assert_eq!(read(octets, piece), whole);
    let Ok((replies, rest)) = whole else { return };
    assert!(rest.len() < MAX_LINE && octets.ends_with(&rest));
    for reply in replies {
        assert!((200..600).contains(&reply.code));
        assert!((1..=MAX_LINES).contains(&reply.lines.len()));
        assert!(reply.lines.iter().map(String::len).sum::<usize>() <= 3 * (MAX_REPLY + MAX_LINE));
        assert!(reply.lines.iter().all(|line| !line.contains('\n')));
        assert!(is_harmless(&printable(&reply.to_string())));
        if let Some(status) = reply.status() {
            assert_eq!(u16::from(status.class), reply.code / 100);
        }
    }
});
