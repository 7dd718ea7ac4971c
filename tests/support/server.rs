//! A mail server that somebody else wrote: what the tests want of it, and what has to be true of every one of them. A
//! server's own test calls these promises and adds what that server alone can show.

use super::authority::Authority;
use super::household::Household;
use super::letter::{Letter, arrived, complete, large, wait_for_letters};
use std::path::PathBuf;

/// What a server's certificate is for.
pub const NAME: &str = "localhost";
/// The one who may submit, and the password.
pub const USER: &str = "alice";
/// Both a space and a quotation mark, which the configuration and SASL have to carry through.
pub const PASSWORD: &str = "open \"sesame\"";

/// A line, or whatever a configuration wants, for each local part of `example.org` that a server knows, all with a
/// Maildir; it refuses everybody else.
pub fn for_each_known(line: impl Fn(&str) -> String) -> String {
    let members = (1..=50).map(|n| format!("member{n:02}"));
    let names = ["alice", "bob", "carol"].map(str::to_owned).into_iter().chain(members);
    names.map(|name| line(&name)).collect::<Vec<_>>().concat()
}

/// A server of the test's own.
pub trait Server {
    /// An account of `config.toml` that may send here; `more` is more of its keys.
    fn account(&self, more: &str) -> String;
    /// Where the Maildirs are, each with its mailbox's name.
    fn mail(&self) -> PathBuf;
    /// What it has logged so far.
    fn log(&self) -> String;

    /// Somebody with that account, who waits for an answer as long as a test may.
    fn household(&self, more: &str) -> Household {
        Household::patient(&self.account(more))
    }

    /// Waits for the one letter of that mailbox.
    fn letter(&self, mailbox: &str) -> Letter {
        self.letters(mailbox, 1).remove(0)
    }

    /// Waits for that many letters.
    fn letters(&self, mailbox: &str, count: usize) -> Vec<Letter> {
        wait_for_letters(&self.mail().join(mailbox), count)
    }

    /// Asserts that nobody has got that mailbox a letter yet.
    fn assert_no_letter(&self, mailbox: &str) {
        assert_eq!(arrived(&self.mail().join(mailbox)), [], "{}", self.log());
    }
}

/// An account with a password, by STARTTLS, at that port.
pub fn account(port: u16, ca_file: &std::path::Path, more: &str) -> String {
    format!(
        "[account.work]\nhost = \"{NAME}\"\nport = {port}\nuser = '{USER}'\npassword = '{PASSWORD}'\n\
         from = \"alice@example.org\"\nca_file = \"{}\"\n{more}\n",
        ca_file.display()
    )
}

/// Dots, spaces at the end and tabs: what arrives is what was sent.
pub fn a_letter_reaches_its_recipient_byte_for_byte(server: &impl Server) {
    let household = server.household("");
    let letter = complete("hello", "First letter.\n..\n.\n.From here on\nFrom me\nspaces at the end  \n\ttab\n");
    household.send(&["-i", "bob@example.org"], &letter);
    let arrived = server.letter("bob@example.org");
    assert_eq!(arrived.as_sent(), letter, "{arrived:?}");
    assert_eq!(arrived.field("Return-Path"), "<alice@example.org>");
    household.assert_queue_is_empty();
}

/// Twenty megabytes as well, in lines of every length.
pub fn twenty_megabytes_arrive_byte_for_byte(server: &impl Server) {
    let letter = complete("large", &large(20 << 20));
    server.household("").send(&["-i", "bob@example.org"], &letter);
    let arrived = server.letter("bob@example.org");
    assert!(arrived.as_sent() == [&letter[..], b"\n"].concat(), "{arrived:?}");
}

/// Bytes that no ASCII has.
pub fn eight_bits_arrive_as_they_were_written(server: &impl Server) {
    let letter = complete("8bit", "Grüße aus Köln, привет, 你好 🐦\n");
    let mime = &b"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"[..];
    let letter = [mime, &letter].concat();
    server.household("").send(&["bob@example.org"], &letter);
    assert_eq!(server.letter("bob@example.org").as_sent(), letter);
}

/// Each gets the letter; that it was one transaction only the server's log can say.
pub fn fifty_recipients_get_one_letter_each(server: &impl Server) {
    let members: Vec<_> = (1..=50).map(|n| format!("member{n:02}@example.org")).collect();
    let letter = complete("club", "Meeting on Friday.\n");
    let household = server.household("");
    household.send(&members.iter().map(String::as_str).collect::<Vec<_>>(), &letter);
    for member in &members {
        assert_eq!(server.letter(member).as_sent(), letter);
    }
    household.assert_queue_is_empty();
}

/// The others get the letter, and its sender gets a report, which names nobody else and what the server said.
pub fn one_refused_recipient_does_not_cost_the_others(server: &impl Server, status: &str, said: &str) {
    let household = server.household("");
    let letter = complete("three", "For three.\n");
    let ended = household.sendmail(&["bob@example.org", "nobody@example.org", "carol@example.org"], &letter);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_eq!(server.letter("bob@example.org").as_sent(), letter);
    assert_eq!(server.letter("carol@example.org").as_sent(), letter);
    household.run_queue();
    let bounce = server.letter("alice@example.org");
    // OpenSMTPD writes no such field into a bounce.
    assert!(["<>", ""].contains(&&*bounce.field("Return-Path")), "{bounce:?}");
    let status = format!("Status: {status}");
    for words in ["Final-Recipient: rfc822;nobody@example.org", &status, said, "Subject: three"] {
        assert!(bounce.text().replace("rfc822; ", "rfc822;").contains(words), "no {words:?} in {bounce:?}");
    }
    assert_eq!(bounce.text().matches("Final-Recipient").count(), 1, "{bounce:?}");
    household.assert_queue_is_empty();
}

/// Nobody has the letter, and the caller knows.
pub fn when_every_recipient_is_refused_the_caller_hears_it(server: &impl Server, said: &[&str]) {
    let household = server.household("");
    let ended = household.sendmail(&["nobody@example.org"], &complete("lost", "?\n"));
    ended.says(67, &[&["<nobody@example.org>"], said].concat());
    household.assert_queue_is_empty();
    server.assert_no_letter("alice@example.org");
}

/// A wrong password, and certificates that are not the server's.
pub fn our_own_faults_keep_the_letter_and_speak_up(server: &impl Server) {
    let other = tempfile::tempdir().unwrap();
    let strangers_ca = format!("ca_file = \"{}\"", Authority::new().write(other.path()).display());
    let good = server.account("");
    let ca = good.lines().find(|line| line.starts_with("ca_file = ")).unwrap();
    let faults = [
        ("a wrong password", good.replace("sesame", "barley"), vec!["535", "work"]),
        ("a certificate by a stranger", good.replace(ca, &strangers_ca), vec!["certificate"]),
        (
            "a certificate for another name",
            good.replace("\"localhost\"", "\"127.0.0.1\""),
            vec!["certificate", "127.0.0.1"],
        ),
    ];
    let mut sent = 0;
    for (fault, account, words) in faults {
        let household = Household::patient(&account);
        let letter = complete("fault", fault);
        let ended = household.sendmail(&["bob@example.org"], &letter);
        eprintln!("{fault}: {}", ended.stderr);
        ended.says(0, &words);
        assert!(!ended.stderr.contains("barley"), "{fault}: the password is told: {}", ended.stderr);
        assert!(household.mailq().contains("bob@example.org"), "{fault}: {}", household.mailq());
        assert_eq!(arrived(&server.mail().join("bob@example.org")).len(), sent, "{fault}: {}", server.log());
        // The letter is none the worse for it.
        household.configure(&good);
        household.run_queue();
        sent += 1;
        let arrived = server.letters("bob@example.org", sent);
        let expected = [&letter[..], b"\n"].concat();
        assert!(arrived.iter().any(|arrived| arrived.as_sent() == expected), "{fault}: {arrived:?}");
        household.assert_queue_is_empty();
    }
}

/// It is told how much the server takes, and does not begin.
pub fn a_letter_over_the_servers_limit_is_refused_before_it_is_sent(server: &impl Server, limit: usize) {
    let household = server.household("");
    let letter = complete("large", &"0123456789\n".repeat(limit / 5));
    household.sendmail(&["bob@example.org"], &letter).says(65, &["localhost", &limit.to_string()]);
    household.assert_queue_is_empty();
}

/// `stop` returns when nobody listens any more, `restart` when somebody does again.
pub fn a_server_that_is_stopped_gets_its_letter_later(
    server: &impl Server,
    stop: impl FnOnce(),
    restart: impl FnOnce(),
) {
    let household = server.household("");
    let letter = complete("later", "Take your time.\n");
    stop();
    household.send(&["bob@example.org"], &letter);
    assert!(household.mailq().contains("Connection refused"), "{}", household.mailq());
    household.run_queue();
    assert!(household.mailq().contains("bob@example.org"));

    restart();
    household.run_queue();
    assert_eq!(server.letter("bob@example.org").as_sent(), letter);
    household.assert_queue_is_empty();
}
