//! The envelope: whom a letter goes to and whom it comes from, whatever words, header or caller it was given by.

use crate::support::case::{case, check, text};
use crate::support::relay::Script;

/// The recipients that arguments and header give: who, and nobody twice.
#[test]
fn the_envelope_has_everybody_once() {
    let rows: &[(&str, &[&str], &str, &[&str])] = &[
        ("arguments", &["a@x.example", "b@x.example"], "", &["a@x.example", "b@x.example"]),
        ("a list in one argument", &["a@x.example, B <b@x.example>"], "", &["a@x.example", "b@x.example"]),
        ("duplicates", &["a@x.example", "a@X.EXAMPLE", "A@x.example"], "", &["A@x.example", "a@x.example"]),
        ("an empty argument among others", &["", "a@x.example"], "", &["a@x.example"]),
        ("without -t the header is not asked", &["a@x.example"], "To: b@x.example\n", &["a@x.example"]),
        (
            "-t and arguments",
            &["-t", "a@x.example", "b@x.example"],
            "To: b@x.example\nCc: c@x.example\nBcc: d@x.example\nTo: e@x.example\n",
            &["a@x.example", "b@x.example", "c@x.example", "d@x.example", "e@x.example"],
        ),
        ("clusters", &["-tif", "alice@example.com"], "To: a@x.example\n", &["a@x.example"]),
        (
            "Bcc in odd spellings",
            &["-t"],
            "To : a@x.example\nBCC: b@x.example\nbcc : c@x.example,\n\td@x.example\nBcc:\n",
            &["a@x.example", "b@x.example", "c@x.example", "d@x.example"],
        ),
        (
            "the newest Resent block only",
            &["-t"],
            "Resent-To: a@x.example\nResent-Bcc: b@x.example\nResent-From: me@x.example\nReceived: from x\n\
             Resent-To: old@x.example\nResent-From: old@x.example\nTo: c@x.example\nBcc: d@x.example\n",
            &["a@x.example", "b@x.example"],
        ),
        (
            "groups",
            &["-t"],
            "To: friends: a@x.example, B <b@x.example>;, undisclosed-recipients:;\nCc: c@x.example\n",
            &["a@x.example", "b@x.example", "c@x.example"],
        ),
        (
            "comments, routes, encoded words, empty items",
            &["-t"],
            "To: (to (nested)) a@x.example (a), <@r.example,@s.example:b@x.example>,,\n \
             =?utf-8?q?J=C3=B6rg=2C_c?= <c@x.example>, \"d, d\" <d@x.example>,\n",
            &["a@x.example", "b@x.example", "c@x.example", "d@x.example"],
        ),
        (
            "quoted local parts",
            &["\"john doe\"@x.example", "\"a@b\"@x.example", "\"plain\"@x.example"],
            "",
            &["\"a@b\"@x.example", "\"john doe\"@x.example", "plain@x.example"],
        ),
        ("spaces around the @", &["-t"], "To: a @ x.example\n", &["a@x.example"]),
        ("an address literal", &["a@[192.0.2.1]"], "", &["a@[192.0.2.1]"]),
        ("names without a domain", &["root"], "", &["root@box.example"]),
        ("an international domain", &["bob@bücher.example"], "", &["bob@xn--bcher-kva.example"]),
        ("a dash behind --", &["--", "-dash@x.example"], "", &["-dash@x.example"]),
        ("semicolons, as Outlook has them", &["-t"], "To: a@x.example; b@x.example\n", &["a@x.example", "b@x.example"]),
        ("a long local part, as SRS makes them", &[LONG], "", &[LONG]),
    ];
    let cases = rows.iter().map(|(name, words, header, recipients)| {
        let rcpts: Vec<String> = recipients.iter().map(|to| format!("RCPT TO:<{to}>")).collect();
        case(name)
            .words(words)
            .input(format!("{header}Subject: x\n\nhello\n"))
            .wire(&format!("MAIL FROM:<alice@example.com> SIZE=#\n{}\nDATA", rcpts.join("\n")))
    });
    check(cases);
}

const LONG: &str = "srs0=abcd=ef=a-sender-with-a-long-domain.example=a-sender-with-a-long-local-part@x.example";

#[test]
fn a_recipient_that_needs_smtputf8_gets_it_and_others_do_not() {
    check([
        case("a local part")
            .words(&["jörg@example.org"])
            .wire("MAIL FROM:<alice@example.com> SIZE=# SMTPUTF8\nRCPT TO:<jörg@example.org>\nDATA"),
        case("a sender")
            .words(&["-f", "jörg@example.org", "bob@example.org"])
            .wire("MAIL FROM:<jörg@example.org> SIZE=# BODY=8BITMIME SMTPUTF8\nRCPT TO:<bob@example.org>\nDATA"),
        case("only a domain, without the extension")
            .relay(Script::default().offering(&["PIPELINING"]))
            .words(&["bob@bücher.example"])
            .wire("MAIL FROM:<alice@example.com>\nRCPT TO:<bob@xn--bcher-kva.example>\nDATA"),
        case("a local part without the extension costs the others nothing")
            .relay(Script::default().offering(&["PIPELINING"]))
            .words(&["jörg@example.org", "bob@example.org"])
            .wire("MAIL FROM:<alice@example.com>\nRCPT TO:<bob@example.org>\nDATA")
            .queued(&["MAILER-DAEMON"]),
        case("and alone it is refused")
            .relay(Script::default().offering(&["PIPELINING"]))
            .words(&["jörg@example.org"])
            .status(65)
            .says(&["jörg@example.org", "RELAY", "SMTPUTF8"])
            .undelivered()
            .wire("")
            .unqueued(),
    ]);
}

#[test]
fn the_reverse_path_is_what_was_asked_for() {
    let rows: &[(&str, &[&str], &str)] = &[
        ("none: the account's", &[], "alice@example.com"),
        ("-f", &["-f", "a@x.example"], "a@x.example"),
        ("-f attached", &["-fa@x.example"], "a@x.example"),
        ("-r", &["-r", "a@x.example"], "a@x.example"),
        ("the last one counts", &["-f", "a@x.example", "-rb@x.example"], "b@x.example"),
        ("angles", &["-f", "<a@x.example>"], "a@x.example"),
        ("a name", &["-f", "A Name <a@x.example>"], "a@x.example"),
        ("the null path", &["-f", "<>"], ""),
        ("the null path, empty", &["-f", ""], ""),
        ("without a domain", &["-f", "root"], "root@box.example"),
    ];
    check(rows.iter().map(|(name, words, path)| {
        let words: Vec<&str> = words.iter().copied().chain(["bob@example.org"]).collect();
        case(name).words(&words).wire(&format!("MAIL FROM:<{path}> SIZE=#\nRCPT TO:<bob@example.org>\nDATA"))
    }));
    check([case("an international domain")
        .words(&["-f", "a@bücher.example", "bob@example.org"])
        .wire("MAIL FROM:<a@xn--bcher-kva.example> SIZE=#\nRCPT TO:<bob@example.org>\nDATA")]);
}

#[test]
fn reports_are_asked_for_where_the_relay_can_give_them() {
    let words = ["-N", "failure,delay", "-R", "hdrs", "-V", "id+1", "bob@example.org"];
    check([
        case("DSN").words(&words).wire(
            "MAIL FROM:<alice@example.com> SIZE=# RET=HDRS ENVID=id+2B1\n\
             RCPT TO:<bob@example.org> NOTIFY=FAILURE,DELAY\nDATA",
        ),
        case("never")
            .words(&["-Nnever", "bob@example.org"])
            .wire("MAIL FROM:<alice@example.com> SIZE=#\nRCPT TO:<bob@example.org> NOTIFY=NEVER\nDATA"),
        case("not offered: the letter goes all the same, in silence")
            .words(&words)
            .relay(Script::default().offering(&["PIPELINING"]))
            .wire("MAIL FROM:<alice@example.com>\nRCPT TO:<bob@example.org>\nDATA"),
        case("an unknown word is ignored")
            .words(&["-N", "sometimes", "-R", "bits", "bob@example.org"])
            .wire("MAIL FROM:<alice@example.com> SIZE=#\nRCPT TO:<bob@example.org>\nDATA"),
    ]);
}

#[test]
fn no_address_carries_a_command_to_the_wire() {
    let mut cases = Vec::new();
    for (name, evil) in [
        ("CR LF", "a@x.example>\r\nRCPT TO:<evil@x.example"),
        ("LF", "a@x.example>\nDATA"),
        ("CR", "a@x.example\rDATA"),
        ("CR LF in quotes", "\"a\r\nDATA\"@x.example"),
        ("LF at the end", "a@x.example\n"),
        ("a parameter", "a@x.example> SIZE=1"),
        ("a space", "a b@x.example"),
        ("an angle", "a>b@x.example"),
        ("two addresses", "a@x.example, b@x.example"),
    ] {
        cases.push(
            case(&format!("-f, {name}"))
                .words(&["-f", evil, "bob@example.org"])
                .status(64)
                .says(&[])
                .unsent()
                .unqueued(),
        );
    }
    for (name, evil) in [
        ("CR LF", "a@x.example>\r\nRCPT TO:<evil@x.example"),
        ("LF", "a@x.example>\nDATA"),
        ("CR LF in quotes", "\"a\r\nDATA\"@x.example"),
        ("CR LF in a domain", "a@x.example\r\nDATA"),
        ("an angle", "a>b@x.example"),
    ] {
        cases.push(case(&format!("recipient, {name}")).words(&["--", evil]).status(64).says(&[]).unsent().unqueued());
    }
    cases.push(case("recipient, a parameter").words(&["--", "<a@x.example> SIZE=1"]).status(64).says(&[]).unsent());
    cases.push(
        case("-V, CR LF")
            .words(&["-V", "id\r\nRCPT TO:<evil@x.example>", "bob@example.org"])
            .wire("MAIL FROM:<alice@example.com> SIZE=#\nRCPT TO:<bob@example.org>\nDATA"),
    );
    cases.push(case("-F, CR LF").words(&["-F", "x\r\nBcc: evil@x.example", "bob@example.org"]).letter(|letter| {
        let got = text(&letter.content)?;
        if got.contains("\nBcc") { Err(format!("{got:?}")) } else { Ok(()) }
    }));
    check(cases);
}
