//! Files that cannot be read or written, at every call on them; a signal
//! at every call; and queue files that are not as they were left.
//!
//! A fault on a file that somebody configured is told with the file's name, and is never taken for a file that is not
//! there: no other configuration, no unresolved alias, no session without its password or its trust. The letter is with
//! the relay, in the queue, or its caller knows that nobody has it.

use crate::harm::{PASSWORD, indiscretions};
use crate::support::peer;
use crate::support::relay::{Letter, Relay, Script};
use crate::support::sendmail::{Sendmail, sendmail};
use crate::support::tokens::{Tokens, grant};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Config,
    Msmtprc,
    Mailrc,
    Aliases,
    /// A list that the aliases include.
    List,
    Authority,
    Password,
    /// A password of systemd's.
    Credential,
    Netrc,
    Log,
    /// msmtp's.
    Sessions,
    Cache,
}

const SUBJECTS: [Subject; 12] = [
    Subject::Config,
    Subject::Msmtprc,
    Subject::Mailrc,
    Subject::Aliases,
    Subject::List,
    Subject::Authority,
    Subject::Password,
    Subject::Credential,
    Subject::Netrc,
    Subject::Log,
    Subject::Sessions,
    Subject::Cache,
];

/// The calls on a file that can fail.
const CALLS: &str = "openat,read,pread64,readv,statx,newfstatat,fstat,lseek,write,pwrite64,fsync,fdatasync,\
    rename,renameat,renameat2,\
    fchmod,chmod,flock,getdents64,unlink,mkdir,readlink,close";

/// The errors that a disk, or a system that is full, has for them.
const ERRORS: [&str; 9] = ["EIO", "EACCES", "EMFILE", "ENOMEM", "ENOSPC", "ESTALE", "EINTR", "EDQUOT", "EROFS"];

/// A home in which everything is used, the good relay, and one that must never be called.
struct World {
    home: Sendmail,
    good: Relay,
    wrong: Relay,
    /// Where the token came from.
    _tokens: Tokens,
    path: PathBuf,
}

const LETTER: &[u8] =
    b"From: <alice@example.com>\nTo: <bob@example.org>\nSubject: whole\nDate: Tue, 24 Nov 2026 12:00:00 +0000\n\
    Message-ID: <whole@example.com>\n\nhello\n";

impl World {
    fn new(subject: Subject) -> Self {
        let script = match subject {
            Subject::Cache => Script::default().mechanisms("XOAUTH2"),
            _ => Script::default(),
        };
        let mut script = script;
        script.login = Some(("alice".to_owned(), PASSWORD.to_owned()));
        let (good, wrong) = (Relay::start(script), Relay::start(Script::open()));
        let tokens = Tokens::start(vec![grant(PASSWORD, 3600, "")]);
        let home = Sendmail::new("").without("PILLARBOX_CONFIG");
        let authority = home.put("ca.pem", &good.identity.authority);
        home.put("password", &format!("{PASSWORD}\n"));
        home.put(".netrc", &format!("machine 127.0.0.1 login alice password {PASSWORD}\n"));
        let listed = format!("root: :include:{}\n", home.put("list", "bob@example.org\n").display());
        home.put("aliases", if subject == Subject::List { &listed } else { "root: bob@example.org\n" });
        let credentials = home.put("credentials/relay", &format!("{PASSWORD}\n"));
        let home = home.env("CREDENTIALS_DIRECTORY", credentials.parent().unwrap());
        let at = |name: &str| home.home().join(name);
        home.put("refresh", "refresh-1\n");
        let (port, other) = (good.address.port(), wrong.address.port());
        let wrong_rc = format!("account default\nhost 127.0.0.1\nport {other}\nfrom alice@example.com\n");
        let password = match subject {
            Subject::Netrc => "{ netrc = true }".to_owned(),
            Subject::Credential => "{ credential = \"relay\" }".to_owned(),
            Subject::Cache => format!(
                "{{ oauth = {{ token_url = \"{}\", client_id = \"box\", refresh_token = {{ file = \"{}\" }} }} }}",
                tokens.url(),
                at("refresh").display()
            ),
            _ => format!("{{ file = \"{}\" }}", at("password").display()),
        };
        let toml = format!(
            "default = \"work\"\ndomain = \"box.example\"\nalias_file = \"{}\"\nlog = \"{}\"\n[account.work]\n\
             host = \"127.0.0.1\"\n\
             port = {port}\nuser = \"alice\"\npassword = {password}\nca_file = \"{}\"\n[queue]\nrunner = \"off\"\n\
             deadline = \"50s\"\n",
            at("aliases").display(),
            at("log").display(),
            authority.display(),
        );
        if subject == Subject::Mailrc {
            let authority = authority.display();
            home.put(
                ".mailrc",
                &format!(
                    "set v15-compat mta=smtp://alice:{PASSWORD}@127.0.0.1:{port} smtp-use-starttls\n\
                     set tls-ca-file={authority} tls-ca-no-defaults\nalias root bob@example.org\n"
                ),
            );
        } else if matches!(subject, Subject::Msmtprc | Subject::Sessions) {
            home.put(
                ".msmtprc",
                &format!(
                    "account default\nhost 127.0.0.1\nport {port}\ntls on\ntls_trust_file {}\nauth on\nuser alice\n\
                     password {PASSWORD}\n\
                     aliases {}\nlogfile {}\n",
                    authority.display(),
                    at("aliases").display(),
                    at("log").display()
                ),
            );
            home.put(".mailrc", &format!("set mta=smtp://127.0.0.1:{other} v15-compat\n"));
        } else {
            home.put(".config/pillarbox/config.toml", &toml);
            home.put(".msmtprc", &wrong_rc);
        }
        home.put("log", "");
        if subject == Subject::Cache {
            // That there is a token to be read.
            let ran = home.run(&["carol@example.org"], b"Subject: x\n\nhello\n");
            assert_eq!((ran.status, &*ran.stderr), (0, ""));
        }
        let path = match subject {
            Subject::Config => at(".config/pillarbox/config.toml"),
            Subject::Msmtprc => at(".msmtprc"),
            Subject::Mailrc => at(".mailrc"),
            Subject::List => at("list"),
            Subject::Credential => credentials,
            Subject::Aliases => at("aliases"),
            Subject::Authority => authority,
            Subject::Password => at("password"),
            Subject::Netrc => at(".netrc"),
            Subject::Log | Subject::Sessions => at("log"),
            Subject::Cache => {
                let dir = at(".local/state/pillarbox/oauth");
                let mut files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
                files.find(|path| path.extension().is_none_or(|ending| ending != "lock")).unwrap()
            }
        };
        Self { home, good, wrong, _tokens: tokens, path }
    }

    /// Sends the letter with strace(1) in between; its words come first. Status and what it said.
    fn send(&self, strace: &[String]) -> (i32, String) {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", &self.home.home().join("trace").display().to_string()]).args(strace);
        command.arg(sendmail()).args(["-f", "alice@example.com", "root"]);
        command.env_clear().envs(self.home.environment().iter().cloned()).env("TZ", "UTC").current_dir("/");
        let input = self.home.put("input.eml", &String::from_utf8_lossy(LETTER));
        let output = command.stdin(File::open(input).unwrap()).stdout(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code().unwrap_or(-1), said)
    }

    fn trace(&self) -> String {
        fs::read_to_string(self.home.home().join("trace")).unwrap_or_default()
    }
}

fn on(path: &Path) -> Vec<String> {
    ["-P".to_owned(), path.display().to_string(), "-e".to_owned(), format!("trace={CALLS}")].to_vec()
}

/// How often each call is made on the file on a good day.
fn count(subject: Subject) -> BTreeMap<String, usize> {
    let world = World::new(subject);
    let (status, said) = world.send(&on(&world.path));
    assert_eq!((status, &*said), (0, ""), "{subject:?} without a fault");
    let mut calls = BTreeMap::new();
    for line in world.trace().lines() {
        let call = line.split_once(' ').and_then(|(_, line)| line.trim_start().split_once('('));
        if let Some((call, _)) = call.filter(|(call, _)| CALLS.split(',').any(|known| known.trim() == *call)) {
            *calls.entry(call.to_owned()).or_default() += 1;
        }
    }
    assert!(!calls.is_empty(), "{subject:?} is not touched");
    calls
}

/// One fault; `Ok(false)` where it did not come to it.
fn suffer(subject: Subject, call: &str, number: usize, error: &str) -> Result<bool, String> {
    let world = World::new(subject);
    let before = world.good.connections();
    let inject = format!("inject={call}:error={error}:when={number}");
    let (status, said) = world.send(&[on(&world.path), vec!["-e".to_owned(), inject]].concat());
    let hit = world.trace().contains("(INJECTED)");
    let (home, name) = (world.home, world.path.display().to_string());
    let queued = fs::read_dir(home.queue().join("letters")).map_or(0, Iterator::count);
    let wrong_calls = world.wrong.finish();
    let heard = world.good.finish();
    let letters: Vec<&Letter> = heard[before.min(heard.len())..]
        .iter()
        .flat_map(|dialogue| &dialogue.letters)
        .filter(|letter| !letter.recipients.is_empty())
        .collect();
    let mut wrong = Vec::new();
    if !wrong_calls.is_empty() {
        wrong.push("another configuration was used".to_owned());
    }
    if status != 0 && !(64..=78).contains(&status) || status == 70 {
        wrong.push("an improper end".to_owned());
    }
    match (status, letters.len(), queued) {
        (0, 1, 0) | (0, 0, 1) => {}
        (0, 0, 0) => wrong.push("LOST".to_owned()),
        (0, ..) => wrong.push("DOUBLED".to_owned()),
        (_, 0, 0) => {}
        (..) => wrong.push("somebody has it, and its caller does not know".to_owned()),
    }
    for letter in &letters {
        if !letter.recipients[0].contains("bob@example.org") || letter.recipients.len() != 1 {
            wrong.push(format!("it went to {:?}", letter.recipients));
        }
        if String::from_utf8_lossy(&letter.content).replace("\r\n", "\n") != String::from_utf8_lossy(LETTER) {
            wrong.push("it is not whole".to_owned());
        }
    }
    let is_log = matches!(subject, Subject::Log | Subject::Sessions);
    if is_log && (status, letters.len()) != (0, 1) {
        wrong.push("a log stands in a letter's way".to_owned());
    }
    // Whoever does not get his letter away at once hears why.
    let quiet = is_log || (status == 0 && letters.len() == 1);
    if hit && !quiet && !said.contains(&name) {
        wrong.push("nobody is told which file it was".to_owned());
    }
    if said.contains("no configuration") {
        wrong.push("the file was taken for none".to_owned());
    }
    wrong.extend(indiscretions(&said, "what it said"));
    if wrong.is_empty() {
        return Ok(hit);
    }
    Err(format!(
        "{subject:?}, {error} at {call} {number}: {} (status {status}, {} at the relay, {queued} queued, {said:?})",
        wrong.join(", "),
        letters.len()
    ))
}

#[test]
fn what_is_wrong_with_an_alias_costs_nobody_else_his_mail() {
    let relay = Relay::start(Script::open());
    let home = Sendmail::to(&relay);
    home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", "");
    let (aliases, log) = (home.put("aliases", "root: bob@example.org\nlist: |/bin/list\n"), home.home().join("log"));
    let text = fs::read_to_string(home.home().join("config.toml")).unwrap();
    home.put("config.toml", &format!("alias_file = {aliases:?}\nlog = {log:?}\n{text}"));
    for (words, status, said) in [
        (["carol@example.org"], 0, ""),
        (["root"], 0, ""),
        (["list"], 78, "runs a program"),
        (["-bi"], 78, "runs a program"),
    ] {
        let ran = home.run(&words, LETTER);
        assert_eq!(ran.status, status, "{words:?}: {ran:?}");
        assert!(if status == 0 { ran.stderr.is_empty() } else { ran.stderr.contains(said) }, "{words:?}: {ran:?}");
    }
    let logged = fs::read_to_string(log).unwrap();
    assert_eq!(logged.matches(" bad aliases count=1 reason=").count(), 3, "{logged}");
    let heard = relay.finish();
    let to: Vec<&str> = heard.iter().flat_map(|one| &one.letters).map(|letter| &*letter.recipients[0]).collect();
    assert!(to.len() == 2 && to[0].contains("carol@") && to[1].contains("bob@"), "{to:?}");
}

fn sweep(errors: &[&str]) {
    let faults: Vec<(Subject, String, usize, &str)> = SUBJECTS
        .iter()
        .flat_map(|&subject| count(subject).into_iter().map(move |(call, times)| (subject, call, times)))
        .flat_map(|(subject, call, times)| (1..=times).map(move |number| (subject, call.clone(), number)))
        .flat_map(|(subject, call, number)| errors.iter().map(move |&error| (subject, call.clone(), number, error)))
        .collect();
    let (next, hits, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                while let Some((subject, call, number, error)) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                    match suffer(*subject, call, *number, error) {
                        Ok(hit) => drop(hits.fetch_add(usize::from(hit), Ordering::SeqCst)),
                        Err(why) => wrong.lock().unwrap().push(why),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    println!(
        "faults at files: {} points, {} hit, {} complaints",
        faults.len(),
        hits.into_inner() + wrong.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_never_taken_for_none() {
    if peer::here(&["strace"]) {
        sweep(&["EIO", "EACCES"]);
    }
}

#[test]
#[ignore = "takes minutes, and prints its figures"]
fn every_fault_at_every_file() {
    if peer::here(&["strace"]) {
        sweep(&ERRORS);
    }
}

/// A signal at a call of a submission; what is wrong with its end.
fn interrupt(signal: &str, call: &str, number: usize) -> Result<(), String> {
    let world = World::new(Subject::Password);
    let inject = format!("inject={call}:signal={signal}:when={number}");
    let (status, said) = world.send(&["-e".to_owned(), format!("trace={call}"), "-e".to_owned(), inject]);
    let queued = fs::read_dir(world.home.queue().join("letters")).map_or(0, Iterator::count);
    drop(world.wrong.finish());
    let heard = world.good.finish();
    let letters = heard.iter().flat_map(|dialogue| &dialogue.letters).count();
    let fits = match status {
        0 => letters + queued == 1 || letters == 1,
        // The last of them in the loader's part, before the first instruction of ours.
        64..=69 | 71..=78 | 143 | 130 | 129 | -1 => letters + queued == 0,
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{signal} at {call} {number}: status {status}, {letters} at the relay, {queued} queued: {said:?}"))
    }
}

/// Every `step`th call.
fn signals(step: usize) {
    let world = World::new(Subject::Password);
    let (status, said) = world.send(&[]);
    assert_eq!((status, &*said), (0, ""));
    let mut calls = BTreeMap::<String, usize>::new();
    for line in world.trace().lines() {
        let call = line.split_once(' ').and_then(|(_, line)| line.trim_start().split_once('('));
        if let Some((call, _)) =
            call.filter(|(call, _)| call.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_'))
        {
            *calls.entry(call.to_owned()).or_default() += 1;
        }
    }
    drop((world.good.finish(), world.wrong.finish()));
    let points: Vec<(&str, &String, usize)> = ["SIGTERM", "SIGHUP", "SIGINT"]
        .into_iter()
        .flat_map(|signal| {
            calls.iter().flat_map(move |(call, &times)| (1..=times).map(move |number| (signal, call, number)))
        })
        .filter(|(_, call, _)| !["execve", "exit_group", "exit"].contains(&call.as_str()))
        .step_by(step)
        .collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                while let Some((signal, call, number)) = points.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if let Err(why) = interrupt(signal, call, *number) {
                        wrong.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    println!("signals: {} points, {} complaints", points.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_signal_at_any_of_a_few_calls_leaves_the_letter_with_somebody_who_knows() {
    if peer::here(&["strace"]) {
        signals(13);
    }
}

#[test]
#[ignore = "takes minutes, and prints its figures"]
fn a_signal_at_every_call_leaves_the_letter_with_somebody_who_knows() {
    if peer::here(&["strace"]) {
        signals(1);
    }
}

/// A queue of letters that a relay has put off once, so that there are records; each with its text.
fn queue_of(count: usize) -> (Sendmail, Vec<(PathBuf, String)>) {
    let late = Relay::start(Script::open().on("RCPT TO:<carol", "451 4.7.1 later"));
    let home = Sendmail::to(&late);
    home.configure(&late, "tls = \"none\"\nuser =\npassword =\n", "");
    let mut letters = Vec::new();
    for number in 0..count {
        let text = format!(
            "From: <a@example.com>\nSubject: {number:05}\nDate: Tue, 24 Nov 2026 12:00:00 +0000\n\
             Message-ID: <{number:05}@example.com>\n\nbody\n"
        );
        let ran = home.run(&["-odq", "-f", "a@example.com", "carol@example.org"], text.as_bytes());
        assert_eq!(ran.status, 0, "{ran:?}");
        letters.push(text);
    }
    assert_eq!(home.run(&["-qf"], b"").status, 0);
    drop(late.finish());
    let mut paths: Vec<PathBuf> =
        fs::read_dir(home.queue().join("letters")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert_eq!(paths.len(), count);
    let find = |path: &PathBuf| {
        let octets = fs::read(path).unwrap();
        letters
            .iter()
            .find(|text| memchr::memmem::find(&octets, text.replace('\n', "\r\n").as_bytes()).is_some())
            .unwrap()
            .clone()
    };
    let found = paths.iter().map(|path| (path.clone(), find(path))).collect();
    (home, found)
}

/// Damages all letters of a queue but every tenth, each at another place; runs it, and looks where they are.
fn damaged(what: &str, count: usize, damage: impl Fn(usize, &mut Vec<u8>)) {
    let (home, letters) = queue_of(count);
    let mut sound = Vec::new();
    for (number, (path, text)) in letters.iter().enumerate() {
        if number % 10 == 9 {
            sound.push(text.clone());
            continue;
        }
        let mut octets = fs::read(path).unwrap();
        damage(number, &mut octets);
        fs::write(path, octets).unwrap();
    }
    let good = Relay::start(Script::open());
    home.configure(&good, "tls = \"none\"\nuser =\npassword =\n", "");
    let listing = home.run(&["-bp"], b"");
    assert!(listing.status < 128, "{what}: {listing:?}");
    let ran = home.run(&["-qf"], b"");
    assert_eq!(ran.status, 0, "{what}: {ran:?}");
    let heard = good.finish();
    let got: Vec<String> = heard
        .iter()
        .flat_map(|dialogue| &dialogue.letters)
        .map(|letter| String::from_utf8_lossy(&letter.content).replace("\r\n", "\n"))
        .collect();
    let names = |dir: &str| fs::read_dir(home.queue().join(dir)).map_or(0, Iterator::count);
    let (corrupt, failed) = (names("corrupt") / 2, names("failed"));
    println!(
        "{what}: {count} letters, {} sent whole, {corrupt} set aside, {failed} failed, {} left",
        got.len(),
        names("letters")
    );
    assert!(got.iter().all(|one| letters.iter().any(|(_, text)| text == one)), "{what}: a letter was not sent whole");
    assert!(
        sound.iter().all(|text| got.iter().filter(|one| *one == text).count() == 1),
        "{what}: a sound letter did not go"
    );
    assert_eq!((got.len() + corrupt + failed, names("letters")), (count, 0), "{what}");
}

/// Places to damage: all of a letter's file, by turns.
fn place(number: usize, length: usize, count: usize) -> usize {
    number * length.max(count) / count % length
}

#[test]
fn a_letter_damaged_anywhere_is_set_aside_and_the_others_go() {
    damaged("a bit flipped", 60, |number, octets| {
        let at = place(number, octets.len(), 60);
        octets[at] ^= 1 << (number % 8);
    });
    damaged("cut", 60, |number, octets| octets.truncate(place(number, octets.len(), 60)));
}

#[test]
#[ignore = "takes minutes, and prints its figures"]
fn a_letter_damaged_at_every_octet_is_set_aside_and_the_others_go() {
    damaged("a bit flipped", 1000, |number, octets| {
        let at = place(number, octets.len(), 1000);
        octets[at] ^= 1 << (number % 8);
    });
    damaged("an octet zeroed", 1000, |number, octets| {
        let at = place(number, octets.len(), 1000);
        octets[at] = u8::from(octets[at] == 0);
    });
    damaged("cut", 1000, |number, octets| octets.truncate(place(number, octets.len(), 1000)));
}
