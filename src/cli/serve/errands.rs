//! XQUEUE: what a client may know of the queue, and have done about its letters.
//!
//! | behind XQUEUE | lines, then the answer |
//! |---|---|
//! | | the list that `mailq` prints |
//! | `LIST`, `FAILED` | each letter that waits, or failed (below) |
//! | `SHOW id` | the same of one letter |
//! | `HEAD id`, `CONTENT id` | the letter's header, or all of it, in base64 |
//! | `RUN [-qf] [-qI…] [-qR…] [-qS…]` | the ids of those that are tried now |
//! | `HOLD id`, `RELEASE id`, `RETRY id`, `REMOVE id` | none |
//!
//! A letter is `letter`, its state and accounts, then its [`Papers`]; a file that is none `corrupt:`, its name and why.
//!
//! Root and the service's own user and group have every letter, others those that they handed in; another's letter is
//! to them as one that is not there. Whoever is not root cannot have a letter tried twice in a minute: what a relay
//! thinks of that would be everybody's loss.

use super::clerk::Clerk;
use crate::cli::meaning::Run;
use crate::cli::queue::ways;
use crate::cli::{mailq, run};
use crate::message::Content;
use crate::outcome::printable;
use crate::queue::{Error, Id, Listed, Papers, Queue, State, retry};
use crate::smtp::server::Answer;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::io::Read;
use std::sync::PoisonError;
use std::time::SystemTime;

/// Octets behind a line of base64.
const LINE: usize = 57;

/// What a client of the UNIX socket wants of the queue.
pub(super) struct Errand<'c, 'a> {
    pub(super) clerk: &'c Clerk<'a>,
    pub(super) uid: u32,
    /// Whether every letter is its business.
    pub(super) all: bool,
}

type Tell<'t> = &'t mut dyn FnMut(&str);

impl Errand<'_, '_> {
    pub(super) fn obey(&self, words: &str, tell: Tell<'_>) -> Answer {
        let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
        let done = match (word.to_ascii_uppercase().as_str(), rest.trim()) {
            ("", "") => return self.mailq(tell),
            ("LIST", "") => {
                // Whose they were, nobody can say.
                let corrupt = if self.all { self.queue().corrupt() } else { Ok(Vec::new()) };
                corrupt.unwrap_or_default().iter().for_each(|(name, why)| tell(&format!("corrupt: {name}: {why}")));
                return self.list(self.queue().ids(), tell);
            }
            ("FAILED", "") => return self.list(self.queue().failed_ids(), tell),
            ("RUN", rest) => return self.run(rest, tell),
            (word, id) => match Id::parse(id) {
                None => return Answer::new(501, (5, 4), "that is no errand of XQUEUE's, or no queue id"),
                Some(id) => self.one(word, id, tell),
            },
        };
        done.unwrap_or_else(|error| fault(&error))
    }

    fn queue(&self) -> &Queue {
        &self.clerk.house.queue
    }

    fn is_ours(&self, listed: &Listed) -> bool {
        self.all || listed.letter.entry.uid == self.uid
    }

    fn mailq(&self, tell: Tell<'_>) -> Answer {
        let mut unread = None;
        let listed = mailq::list(self.queue(), &|listed| self.is_ours(listed), tell, &mut |error| {
            tracing::error!(message = "unreadable", reason = %error);
            unread.get_or_insert_with(|| error.to_string());
        });
        self.listed(listed, unread)
    }

    fn list(&self, ids: Result<Vec<Id>, Error>, tell: Tell<'_>) -> Answer {
        let mut unread = None;
        let listed = ids.map(|ids| {
            for id in ids {
                match self.queue().papers(id) {
                    Ok(papers) => self.tell(&papers, tell),
                    Err(Error::NoSuchLetter(_)) => {}
                    Err(error) => {
                        tracing::error!(message = "unreadable", id = %id, reason = %error);
                        unread.get_or_insert_with(|| error.to_string());
                    }
                }
            }
        });
        self.listed(listed, unread)
    }

    /// The end of a list.
    fn listed(&self, listed: Result<(), Error>, unread: Option<String>) -> Answer {
        match (listed, unread) {
            (Ok(()), None) => Answer::new(250, (0, 0), "that is all"),
            (Err(error), _) => fault(&error),
            // Whose letter it is stands in it; a stranger is not told its name.
            (Ok(()), Some(text)) => {
                let text = if self.all { printable(&text) } else { "not every letter can be read".into() };
                Answer::new(451, (3, 0), text)
            }
        }
    }

    /// Tells of a letter, where it is the client's.
    fn tell(&self, papers: &Papers, tell: Tell<'_>) {
        let Some(listed) = papers.listed().filter(|listed| self.is_ours(listed)) else { return };
        let ways = ways(&self.clerk.book.configuration.settings, &listed.letter);
        tell(&format!("letter {} {}", papers.state, ways.join(",")));
        papers.lines().for_each(tell);
    }

    /// Something about one letter.
    fn one(&self, word: &str, id: Id, tell: Tell<'_>) -> Result<Answer, Error> {
        let (queue, now) = (self.queue(), SystemTime::now());
        let ours = |listed| if self.is_ours(&listed) { Ok(listed) } else { Err(Error::NoSuchLetter(id)) };
        let listed = queue.look(id).and_then(ours);
        let listed = match listed {
            // What is damaged can only be removed.
            Err(Error::Damaged(..)) if self.all && word == "REMOVE" => None,
            listed => Some(listed?),
        };
        match (word, listed) {
            ("SHOW", _) => {
                self.tell(&queue.papers(id)?, tell);
                return Ok(Answer::new(250, (0, 0), "that is all"));
            }
            ("HEAD", Some(listed)) => return self.octets(id, listed.letter.entry.header_len, tell),
            ("CONTENT", _) => return self.octets(id, u64::MAX, tell),
            ("HOLD", _) => queue.hold(id, &format!("by {}", self.clerk.who.login), now)?,
            ("RELEASE", _) => queue.release(id, now)?,
            ("RETRY", _) => queue.retry(id, now)?,
            ("REMOVE", _) => queue.remove(id)?,
            _ => return Ok(Answer::new(501, (5, 4), "that is no errand of XQUEUE's")),
        }
        tracing::info!(message = "changed", id = %id, what = word.to_ascii_lowercase(), client = %self.clerk.peer);
        // Something may be due now.
        queue.trigger();
        Ok(Answer::new(250, (0, 0), "done"))
    }

    fn octets(&self, id: Id, most: u64, tell: Tell<'_>) -> Result<Answer, Error> {
        let content = self.queue().content(id)?;
        let failed = |source| Error::Io { doing: "read", path: id.to_string().into(), source };
        let mut reader = content.reader().map_err(failed)?.take(most);
        let mut line = Vec::with_capacity(LINE);
        loop {
            line.clear();
            if reader.by_ref().take(LINE as u64).read_to_end(&mut line).map_err(failed)? == 0 {
                return Ok(Answer::new(250, (0, 0), "that is all"));
            }
            tell(&BASE64_STANDARD.encode(&line));
        }
    }

    /// Has the runner try what is wanted, in its next round.
    fn run(&self, words: &str, tell: Tell<'_>) -> Answer {
        let Some(wanted) = Run::of_words(words) else {
            return Answer::new(501, (5, 4), "the form is: XQUEUE RUN [-qf] [-qI<id>] [-qR<text>] [-qS<text>]");
        };
        let listed = match self.queue().list() {
            Ok(listed) => listed,
            Err(error) => return fault(&error),
        };
        let now = SystemTime::now();
        let too_soon = |listed: &Listed| {
            let last = listed.letter.history.last_attempt();
            !self.all && last.is_some_and(|last| retry::age(last, now) < retry::FIRST)
        };
        let (mut urged, mut left) = (Vec::new(), 0);
        for listed in listed.flatten().filter(|listed| listed.state != State::Hold && self.is_ours(listed)) {
            if !run::is_wanted(&wanted, &listed) {
            } else if too_soon(&listed) {
                left += 1;
            } else {
                urged.push(listed.letter.entry.id);
            }
        }
        for id in &urged {
            tell(&id.to_string());
        }
        let plural = |count: usize| if count == 1 { "letter" } else { "letters" };
        let text = format!("{} {} will be tried now", urged.len(), plural(urged.len()));
        let rest = format!("; {left} {} had an attempt less than a minute ago", plural(left));
        let text = if left > 0 { text + &rest } else { text };
        let mut waiting = self.clerk.house.urged.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(urged);
        drop(waiting);
        self.queue().trigger();
        Answer::new(250, (0, 0), text)
    }
}

/// Why an errand came to nothing; [`service`](crate::cli::service) makes exit statuses of the codes.
fn fault(error: &Error) -> Answer {
    let code = match error {
        Error::NoSuchLetter(_) => 550,
        Error::Busy(_) => 450,
        Error::Damaged(..) => 554,
        Error::Io { .. } | Error::Unsafe { .. } => 451,
    };
    Answer::new(code, (3, 0), printable(&error.to_string()))
}
