//! What this machine has to do with it: the queue's directory, and whose `sendmail` programs find.

use super::super::configuration::Configuration;
use super::super::exit::{self, sysexits};
use super::super::host::Host;
use super::finding::{Mark, Screen};
use crate::config::{LogTo, SessionLog, SessionLogTo};
use crate::queue::{Queue, State};
use memchr::memmem;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where callers look for a `sendmail`.
const DROP_INS: [&str; 2] = ["/usr/sbin/sendmail", "/usr/lib/sendmail"];

/// Octets of a program that are looked at: ours is a tenth of it.
const PROGRAM: u64 = 64 * 1024 * 1024;

/// A letter of usual size and then some.
const ROOM: u64 = 16 * 1024 * 1024;

/// The queue: can it take a letter, and what waits in it?
pub(super) fn queue(screen: &mut Screen<'_>, configuration: &Configuration, host: &Host) {
    if !configuration.settings.queue.enabled {
        let text = "the queue is off: what cannot be relayed at once is refused with 75".to_owned();
        return screen.tell("queue", Mark::Note, &text, None);
    }
    let Some(dir) = &configuration.queue_dir else {
        let mend = "Set dir under [queue], or HOME.".to_owned();
        return screen.fault("queue", "there is no place for a queue", Some(&mend), sysexits::CONFIG);
    };
    let queue = match Queue::find(dir) {
        Ok(Some(queue)) => queue,
        Ok(None) => return unmade(screen, dir),
        Err(error) => {
            let mend = format!("It must be a directory of this user's with mode 0700: ls -ld {}", dir.display());
            return screen.fault("queue", &error.to_string(), Some(&mend), exit::queue(&error));
        }
    };
    let owner = dir.metadata().map_or(host.uid, |found| found.uid());
    if owner != host.uid && host.uid != 0 {
        let text = format!("{} belongs to uid {owner}", dir.display());
        return screen.fault("queue", &text, None, sysexits::CANTCREAT);
    }
    if host.uid != 0 && access(dir, AccessFlags::W_OK).is_err() {
        return screen.fault("queue", &format!("{} cannot be written to", dir.display()), None, sysexits::CANTCREAT);
    }
    room(screen, dir);
    let (mut waiting, mut held) = (0, 0);
    let found = queue.list().map(|letters| {
        for letter in letters {
            match letter {
                Ok(listed) if listed.state == State::Hold => held += 1,
                Ok(_) => waiting += 1,
                Err(error) => screen.tell("queue", Mark::Note, &error.to_string(), None),
            }
        }
    });
    if let Err(error) = found {
        return screen.fault("queue", &error.to_string(), None, exit::queue(&error));
    }
    if waiting + held > 0 {
        let text = format!("letters that wait: {waiting}; on hold: {held}");
        let mend = "pillarbox queue list shows them, each with what the relay said last.".to_owned();
        screen.tell("queue", Mark::Note, &text, Some(&mend));
    }
    let failed = queue.failed().map_or(0, Iterator::count);
    if failed > 0 {
        let mend = "pillarbox queue list --failed shows them; pillarbox queue retry ID brings one back.".to_owned();
        screen.tell("queue", Mark::Note, &format!("letters that failed and are kept: {failed}"), Some(&mend));
    }
    let corrupt = queue.corrupt().map_or(0, |found| found.len());
    if corrupt > 0 {
        let text = format!("files that are no letters, set aside in {}: {corrupt}", dir.join("corrupt").display());
        screen.tell("queue", Mark::Note, &text, None);
    }
}

/// The log's files: nothing else would tell that they cannot be written.
pub(super) fn log(screen: &mut Screen<'_>, targets: &[LogTo]) {
    for target in targets {
        let (LogTo::File(path) | LogTo::Sessions(SessionLog { to: SessionLogTo::File(path, ..), .. })) = target else {
            continue;
        };
        // What is not there is made, in its directory.
        let place = if path.exists() { path } else { path.parent().unwrap_or(path) };
        let why = match access(place, AccessFlags::W_OK) {
            Err(error) => error.desc().to_owned(),
            Ok(()) if path.is_dir() => Errno::EISDIR.desc().to_owned(),
            Ok(()) => continue,
        };
        let text = format!("the log {} cannot be written: {why}", path.display());
        let mend = "Mail goes out all the same, but nothing says there what became of it.";
        screen.tell("log", Mark::Note, &text, Some(mend));
    }
}

/// A queue that was never needed: it is made with the first letter.
fn unmade(screen: &mut Screen<'_>, dir: &Path) {
    let above = dir.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
    if access(above, AccessFlags::W_OK).is_err() {
        let text =
            format!("{} is not there and cannot be made: {} is not ours to write to", dir.display(), above.display());
        return screen.fault("queue", &text, None, sysexits::CANTCREAT);
    }
    screen.tell("queue", Mark::Good, &format!("{} will be made when it is needed", dir.display()), None);
    room(screen, above);
}

fn room(screen: &mut Screen<'_>, dir: &Path) {
    let Ok(found) = nix::sys::statvfs::statvfs(dir) else { return };
    // As wide as the platform has them.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size()));
    let (free_of, unit) = if free >> 30 > 9 { (free >> 30, "GiB") } else { (free >> 20, "MiB") };
    let text = format!("{} has {free_of} {unit} of room", dir.display());
    if free < ROOM {
        let mend = "A letter that cannot be relayed at once needs room to wait in.".to_owned();
        return screen.fault("queue", &text, Some(&mend), sysexits::TEMPFAIL);
    }
    screen.tell("queue", Mark::Good, &text, None);
}

/// Whose letters come here at all.
pub(super) fn machine(screen: &mut Screen<'_>) {
    for name in DROP_INS {
        let Ok(real) = Path::new(name).canonicalize() else {
            let text = format!("{name} is not there: cron and daemons have nobody to give their mail to");
            let mend = beside().map(|ours| format!("ln -s {} {name}", ours.display()));
            if name == DROP_INS[0] {
                screen.tell("drop-in", Mark::Note, &text, mend.as_deref());
            }
            continue;
        };
        let Ok(found) = real.metadata() else { continue };
        let is_ours = is_ours(&real);
        if found.permissions().mode() & 0o6000 != 0 && is_ours {
            let mend = format!("chmod ug-s {}: Pillarbox wants no such bit.", real.display());
            screen.tell("drop-in", Mark::Note, &format!("{} has a set-id bit", real.display()), Some(&mend));
        } else if is_ours {
            screen.tell("drop-in", Mark::Good, &format!("{name} is Pillarbox"), None);
        } else {
            let other = if real == Path::new(name) { "another program".to_owned() } else { real.display().to_string() };
            let text = format!("{name} is not Pillarbox but {other}: what cron and daemons send goes there");
            let link = beside().map(|ours| format!(", and then:\nln -sf {} {name}", ours.display()));
            let mend =
                format!("Where that is not meant, remove that program's package{}", link.as_deref().unwrap_or("."));
            screen.tell("drop-in", Mark::Note, &text, Some(&mend));
        }
    }
}

/// The drop-in that was installed beside this program, where it is; a package has it elsewhere, under its own name.
fn beside() -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?.with_file_name("sendmail");
    this.exists().then_some(this)
}

/// Whether a program is the drop-in, of whatever version and wherever it lies, or a script that sets it up: each knows
/// the variable that names a configuration.
fn is_ours(file: &Path) -> bool {
    let mut octets = Vec::new();
    let read = File::open(file).and_then(|file| file.take(PROGRAM).read_to_end(&mut octets));
    read.is_ok() && memmem::find(&octets, b"PILLARBOX_CONFIG").is_some()
}
