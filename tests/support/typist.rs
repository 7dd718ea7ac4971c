//! Somebody at a terminal: what is waited for there and what is typed then. Python's `pty` is the terminal.

use super::household::Household;
use super::peer::run;

/// `argv[1]` is run by `sh`; `argv[2]` has what to wait for and what to type then, in turns, with `|` between them and
/// Python's escapes. Prints what was shown, and the status last.
const TYPIST: &str = r"
import os, pty, select, sys, time
turns = [part.encode().decode('unicode_escape').encode('latin-1') for part in sys.argv[2].split('|') if part]
pid, master = pty.fork()
if pid == 0:
    os.execvp('sh', ['sh', '-c', sys.argv[1]])
shown, seen, end = b'', 0, time.time() + 60
while True:
    while turns:
        at = shown.find(turns[0], seen)
        if at < 0:
            break
        seen = at + len(turns[0])
        os.write(master, turns[1])
        del turns[:2]
    ready, _, _ = select.select([master], [], [], max(0, end - time.time()))
    assert ready, shown
    try:
        octets = os.read(master, 65536)
    except OSError:
        break
    if not octets:
        break
    shown += octets
_, status = os.waitpid(pid, 0)
sys.stdout.write(shown.decode('utf-8', 'replace').replace('\r\n', '\n'))
sys.stdout.write('\nstatus %d' % os.waitstatus_to_exitcode(status))
";

/// Runs a line of `sh` at a terminal of that household, and gives what it showed. No run may take longer than a minute.
pub fn typed(household: &Household, line: &str, turns: &str) -> String {
    let mut python = household.command("python3");
    run(python.env("TERM", "xterm").args(["-c", TYPIST, line, turns]))
}
