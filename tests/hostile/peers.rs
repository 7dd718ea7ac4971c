//! The same servers, and three others of our kind: msmtp, dma and nullmailer, as Debian has them.
//!
//! What became of a letter is judged by what one is promised by any of them: it ends (our watchdog is 20 s, where a
//! limit of 4 s is set, where one can be), it does not crash, and a letter that the relay has not taken is not called
//! sent; what is a fault of the session or of the settings sends no letter back for good; no password goes out in clear
//! or to a stranger, and neither it nor a control character is printed or logged. (dma sleeps before it tries again,
//! and often with its connection open, which counts as a hang here: nothing tells the one from the other.) dma and
//! nullmailer run in mount and process namespaces of their own, over which their package lies (`.ci/peers`).

use crate::attack::{Attack, Mode, Verdict, Way};
use crate::harm::{PASSWORD, indiscretions, secrets};
use crate::measure;
use crate::servers::table;
use crate::support::peer;
use crate::support::relay::{Dialogue, Relay, Tls};
use crate::support::unpacked::package;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Pillarbox,
    Msmtp,
    Dma,
    Nullmailer,
}

const PEERS: [Peer; 4] = [Peer::Pillarbox, Peer::Msmtp, Peer::Dma, Peer::Nullmailer];

const LIMIT: Duration = Duration::from_secs(20);

/// `$1`: the package; `$2`: a directory with `etc` in it, and `run`.
const INSIDE: &str = r#"
set -e
package=$1 work=$2
mkdir "$work/over"
mount -t tmpfs tmpfs "$work/over"
for dir in etc usr var; do
    mkdir -p "$work/over/$dir/upper" "$work/over/$dir/work"
    over=$work/over/$dir
    mount -t overlay -o "lowerdir=$package/$dir:/$dir,upperdir=$over/upper,workdir=$over/work" overlay "/$dir"
done
cp -R "$work/etc/." /etc/
sh "$work/run"
"#;

/// dma tries, and sleeps for minutes before it tries again: it is ended when it has been without a connection for a
/// while. What it keeps is in its spool.
const DMA: &str = r#"
mkdir -p /var/spool/dma && chgrp mail /var/spool/dma && chmod 2770 /var/spool/dma
chgrp mail /etc/dma/auth.conf && chmod 640 /etc/dma/auth.conf && chmod 644 /etc/dma/dma.conf && chmod 755 /etc/dma
/usr/sbin/dma -D -f alice@example.com bob@example.org <"$work/letter" &
dma=$! quiet=0
while kill -0 $dma 2>/dev/null && [ $quiet -lt 20 ]; do
    quiet=$((quiet + 1))
    ! grep -q " 0100007F:$port 01 " /proc/net/tcp || quiet=0
    sleep 0.1
done
if kill $dma 2>/dev/null; then echo 75; else wait $dma; echo $?; fi >"$work/status"
cp -R /var/spool/dma "$work/spool"
"#;

/// nullmailer's runner goes on for ever: it is ended when it has tried once.
const NULLMAILER: &str = r#"
mkdir -p /var/spool/nullmailer/queue /var/spool/nullmailer/tmp /var/spool/nullmailer/failed
[ -p /var/spool/nullmailer/trigger ] || mkfifo /var/spool/nullmailer/trigger
chown -R mail /var/spool/nullmailer /etc/nullmailer && chmod 755 /etc/nullmailer && chmod 644 /etc/mailname
/usr/bin/nullmailer-inject -f alice@example.com bob@example.org <"$work/letter"
echo $? >"$work/status"
setpriv --reuid=mail --regid=mail --clear-groups /usr/sbin/nullmailer-send >"$work/log" 2>&1 &
runner=$!
while ! grep -q 'Delivery complete' "$work/log"; do sleep 0.05; done
kill $runner
cat "$work/log" >&2
cp -R /var/spool/nullmailer "$work/spool"
"#;

/// What became of it.
#[expect(clippy::too_many_lines, reason = "three programs to set up, each in its own words")]
fn fares(peer: Peer, attack: &Attack) -> Option<(Vec<String>, u64)> {
    let name = &attack.name;
    let needs_scram = name.starts_with("SCRAM") || name.contains("CRAM-MD5");
    if peer != Peer::Pillarbox && name.starts_with("BDAT")
        || matches!(peer, Peer::Dma | Peer::Nullmailer) && needs_scram
    {
        return None;
    }
    if peer == Peer::Pillarbox {
        let mut flaws = Vec::new();
        let mut peak = 0;
        for mode in [Mode::Off, Mode::Run] {
            match attack.clone().run(mode) {
                Ok(kib) => peak = peak.max(kib),
                Err(why) => flaws.push(why),
            }
        }
        return Some((flaws, peak));
    }
    let relay = Relay::start(attack.script.clone());
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path();
    let put = |name: &str, text: &str| {
        let path = work.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    fs::write(work.join("letter"), attack.letter()).unwrap();
    put("ca.pem", &relay.identity.authority);
    let (port, ca) = (relay.address.port(), work.join("ca.pem").display().to_string());
    let logs_in = attack.way == Way::LoggedIn;
    let tls = attack.script.tls;
    let namespace = |peer: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INSIDE, "sh"]);
        command.arg(package(peer)).arg(work);
        command
    };
    let mut command = match peer {
        Peer::Pillarbox | Peer::Msmtp => {
            let auth = if logs_in { format!("auth on\nuser alice\npassword {PASSWORD}\n") } else { String::new() };
            let tls = match tls {
                Tls::Off => "tls off\n".to_owned(),
                Tls::Upgraded => format!("tls on\ntls_trust_file {ca}\n"),
                Tls::Implicit => format!("tls on\ntls_starttls off\ntls_trust_file {ca}\n"),
            };
            let log = work.join("log").display().to_string();
            put("rc", &format!("account default\nhost 127.0.0.1\nport {port}\ntimeout 4\nlogfile {log}\n{tls}{auth}"));
            let mut command = Command::new("msmtp");
            command.arg("-C").arg(work.join("rc")).args(["-f", "alice@example.com", "--", "bob@example.org"]);
            command
        }
        Peer::Dma => {
            let tls = match tls {
                Tls::Off => "",
                Tls::Upgraded => "SECURETRANSFER\nSTARTTLS\n",
                Tls::Implicit => "SECURETRANSFER\n",
            };
            let auth = if logs_in { "AUTHPATH /etc/dma/auth.conf\n" } else { "" };
            put(
                "etc/dma/dma.conf",
                &format!("SMARTHOST 127.0.0.1\nPORT {port}\nMAILNAME box.example\nNULLCLIENT\n{tls}{auth}"),
            );
            put("etc/dma/auth.conf", &format!("alice|127.0.0.1:{PASSWORD}\n"));
            put("run", &format!("work={} port={port:04X}\n{DMA}", work.display()));
            namespace("dma")
        }
        Peer::Nullmailer => {
            let tls = match tls {
                Tls::Off => String::new(),
                Tls::Upgraded => " --starttls --x509cafile=/etc/nullmailer/ca.pem".to_owned(),
                Tls::Implicit => " --ssl --x509cafile=/etc/nullmailer/ca.pem".to_owned(),
            };
            let auth = if logs_in { format!(" --user=alice --pass={PASSWORD}") } else { String::new() };
            put("etc/nullmailer/remotes", &format!("127.0.0.1 smtp --port={port}{tls}{auth}\n"));
            put("etc/nullmailer/ca.pem", &relay.identity.authority);
            put("etc/mailname", "box.example\n");
            put("etc/nullmailer/sendtimeout", "10\n");
            put("run", &format!("work={}\n{NULLMAILER}", work.display()));
            namespace("nullmailer")
        }
    };
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", work).current_dir("/");
    let input = Stdio::from(fs::File::open(work.join("letter")).unwrap());
    let ended = measure::run_for(&command, input, work, LIMIT);
    let heard = relay.finish();
    if std::env::var_os("TRACE").is_some() {
        let commands: Vec<_> = heard.iter().map(|dialogue| &dialogue.commands).collect();
        eprintln!("{peer:?}, {name}: {:?} {}\n{commands:?}", ended.status, String::from_utf8_lossy(&ended.said));
    }
    let taken = heard.iter().flat_map(|dialogue| &dialogue.letters).any(|letter| !letter.recipients.is_empty());
    let status = fs::read_to_string(work.join("status")).ok().and_then(|status| status.trim().parse().ok());
    let status = if peer == Peer::Msmtp { ended.status } else { status };
    let has = |dir: &str, text: &[u8]| contains(&work.join(dir), text);
    // In dma's spool and nullmailer's queue the letter itself; a bounce of it is another one there.
    let (letter, failed) = match peer {
        Peer::Dma => (has("spool", b"Subject: whole"), has("spool", b"MAILER-DAEMON")),
        Peer::Nullmailer => (has("spool/queue", b"the end"), has("spool/failed", b"the end")),
        Peer::Pillarbox | Peer::Msmtp => (status != Some(0), false),
    };
    let mut flaws = Vec::new();
    if ended.hung {
        flaws.push("hang".to_owned());
        return Some((flaws, ended.peak));
    }
    if status.is_none_or(|status: i32| status >= 128) {
        flaws.push("crash".to_owned());
    }
    match attack.verdict {
        Verdict::Deferred(_) | Verdict::Doubtful(_) if failed => flaws.push("bounced".to_owned()),
        Verdict::Deferred(_) | Verdict::Doubtful(_) if !letter && !taken => flaws.push("lost".to_owned()),
        Verdict::Bounced(_) if !letter && !failed && !taken && peer != Peer::Msmtp => flaws.push("lost".to_owned()),
        Verdict::Bounced(_) if status == Some(0) && peer == Peer::Msmtp => flaws.push("lost".to_owned()),
        _ => {}
    }
    let said =
        String::from_utf8_lossy(&ended.said).into_owned() + &fs::read_to_string(work.join("log")).unwrap_or_default();
    // Inside TLS only a server that is not the right one may not have it.
    let is_stranger = name.starts_with("certificate");
    let shown = |dialogue: &Dialogue| {
        secrets().iter().any(|secret| {
            let found = |octets: &[u8]| memchr::memmem::find(octets, secret.as_bytes()).is_some();
            found(&dialogue.clear) || is_stranger && found(&dialogue.encrypted)
        })
    };
    if heard.iter().any(shown) {
        flaws.push("leaked (wire)".to_owned());
    }
    let said: Vec<String> = indiscretions(&said, "");
    if said.iter().any(|one| one.starts_with('"')) {
        flaws.push("leaked (log)".to_owned());
    }
    if said.iter().any(|one| one.starts_with('\'')) {
        flaws.push("raw".to_owned());
    }
    Some((flaws, ended.peak))
}

fn contains(dir: &Path, text: &[u8]) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        kind.is_dir() && contains(&path, text)
            || kind.is_file() && memchr::memmem::find(&fs::read(&path).unwrap(), text).is_some()
    })
}

/// `ONLY` picks rows, `PEER` one of the programs.
#[test]
#[ignore = "takes minutes, and prints its table"]
fn the_same_servers_and_three_others() {
    let wanted = ["msmtp", "unshare", "root"].map(str::to_owned);
    let packages = ["dma", "nullmailer"].map(|name| package(name).display().to_string());
    let wanted: Vec<&str> = wanted.iter().chain(&packages).map(String::as_str).collect();
    if !peer::here(&wanted) {
        return;
    }
    let (only, one) = (std::env::var("ONLY").unwrap_or_default(), std::env::var("PEER").unwrap_or_default());
    let rows: Vec<Attack> = table()
        .into_iter()
        .filter(|row| match row.way {
            Way::LoggedIn => true,
            Way::Upgraded => ["Greeting", "Ehlo", "StartTls"].iter().any(|place| row.name.ends_with(place)),
            Way::Plain | Way::Implicit => false,
        })
        .filter(|row| format!("{:?} {}", row.way, row.name).contains(&only))
        .collect();
    let peers = PEERS.into_iter().filter(|peer| format!("{peer:?}").contains(&one));
    let runs: Vec<(usize, Peer)> = peers.flat_map(|peer| (0..rows.len()).map(move |row| (row, peer))).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                while let Some(&(row, peer)) = runs.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let fared = fares(peer, &rows[row]);
                    found.lock().unwrap().insert((row, peer), fared);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    let word = |row: usize, peer: Peer| match found.get(&(row, peer)) {
        None | Some(None) => "-".to_owned(),
        Some(Some((flaws, _))) if flaws.is_empty() => "ok".to_owned(),
        Some(Some((flaws, _))) => flaws.join("+").lines().next().unwrap_or_default().to_owned(),
    };
    println!("| server | pillarbox | msmtp | dma | nullmailer |\n|---|---|---|---|---|");
    for (number, row) in rows.iter().enumerate() {
        let words = PEERS.map(|peer| word(number, peer));
        println!("| {:?}: {} | {} |", row.way, row.name, words.join(" | "));
    }
    for peer in PEERS {
        let mut sums = BTreeMap::<String, usize>::new();
        let all = found.iter().filter(|((_, of), fared)| *of == peer && fared.is_some());
        let peak = all.clone().filter_map(|(_, fared)| fared.as_ref().map(|(_, peak)| *peak)).max().unwrap_or_default();
        let applied = all.clone().count();
        for (_, fared) in all {
            let Some((flaws, _)) = fared else { continue };
            if flaws.is_empty() {
                *sums.entry("ok".to_owned()).or_default() += 1;
            }
            for flaw in flaws {
                *sums.entry(flaw.lines().next().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        println!("{peer:?}: {applied} rows, {sums:?}, peak {peak} KiB");
    }
}
