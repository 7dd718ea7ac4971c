//! Runs a package that is unpacked but not installed (`.ci/peers`), as if it were, and nobody else sees it: in mount
//! and process namespaces of its own, where it lies over /etc, /usr and /var. The kernel ends all that it started.

use super::peer::{Running, wait_for};
use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `$1`: the unpacked package; `$2`: a directory to work in; `$3`: users to make; then the program and its words.
const INSIDE: &str = r#"
set -e
package=$1 over=$2/over users=$3
shift 3
mkdir -p "$over"
mount -t tmpfs tmpfs "$over"
mount -t tmpfs tmpfs /run
for dir in etc usr var; do
    mkdir -p "$package/$dir" "$over/$dir/upper" "$over/$dir/work"
    mount -t overlay -o "lowerdir=$package/$dir:/$dir,upperdir=$over/$dir/upper,workdir=$over/$dir/work" overlay "/$dir"
done
for user in $users; do
    id "$user" >/dev/null 2>&1 || useradd --system --no-create-home "$user"
done
# Not `exec`: a set-id program would forget to die with `unshare`, and the first process here takes all others along.
"$@"
exit
"#;

/// Where a package lies.
pub fn package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(name)
}

/// Starts a server of the package, and returns when it listens. What it says is in `said` below `dir`.
pub fn start(package: &Path, dir: &Path, users: &str, program: &[&str], port: u16) -> Running {
    let said = File::create(dir.join("said")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INSIDE, "sh"]);
    command.arg(package).arg(dir).arg(users).args(program).stdin(std::process::Stdio::null());
    let mut running = Running(command.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap());
    wait_for(&format!("{program:?} to listen"), || {
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none(), "{program:?}: {ended:?} {}", std::fs::read_to_string(dir.join("said")).unwrap());
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
    });
    running
}
