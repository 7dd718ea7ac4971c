//! Small file systems of a test's own, which can fill up, turn read-only and lose their power.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system; it goes with the value.
pub struct Mount {
    dir: tempfile::TempDir,
}

impl Mount {
    /// Memory of so many octets, with so many inodes. `None`, and a word, where we may not mount.
    pub fn memory(size: usize, inodes: usize) -> Option<Self> {
        Self::new("tmpfs", &format!("size={size},nr_inodes={inodes},mode=755"), "none".as_ref())
    }

    /// The ext4 file system in an image, mounted as a loop device. Nothing is written back while nobody asks for it.
    pub fn image(image: &Path) -> Option<Self> {
        Self::new("ext4", "loop,noatime,commit=300", image)
    }

    fn new(kind: &str, options: &str, source: &Path) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let tried = Command::new("mount").args(["-t", kind, "-o", options]).arg(source).arg(dir.path()).output();
        match tried {
            Ok(output) if output.status.success() => Some(Self { dir }),
            Ok(output) => {
                eprintln!("skipped: may not mount: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "mount is missing: {error}");
                eprintln!("skipped: there is no mount: {error}");
                None
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Mounts it once more, with other options.
    pub fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.dir.path()).status();
        assert!(done.unwrap().success(), "cannot remount");
    }

    /// Fills what is left of it.
    pub fn fill(&self) {
        let filler = self.dir.path().join("filler");
        let mut file = fs::File::create(filler).unwrap();
        let mut block = vec![b'x'; 65_536];
        while !block.is_empty() {
            while std::io::Write::write_all(&mut file, &block).is_ok() {}
            block.truncate(block.len() / 2);
        }
    }

    /// Makes room again.
    pub fn empty(&self) {
        fs::remove_file(self.dir.path().join("filler")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir.path()).status();
    }
}
