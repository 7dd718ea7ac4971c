//! A part of a file as [`Content`]: a letter's octets where the queue or the spool keeps them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::message::Content;

/// `len` octets of a file from `start` on. It keeps the file open, and with it any lock on it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Content for Part {
    fn len(&self) -> u64 {
        self.len
    }

    fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(PartReader { file: &self.file, at: self.start, end: self.start + self.len }))
    }
}

struct PartReader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for PartReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = left.min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        if got == 0 {
            // A file that was cut under our hands is not a letter that ends here.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_part_ends_where_it_ends_and_a_file_that_is_shorter_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let file = Arc::new(file);
        let read = |start, len| {
            let mut octets = Vec::new();
            let part = Part { file: Arc::clone(&file), start, len };
            let result = part.reader().unwrap().read_to_end(&mut octets);
            result.map(|_| octets).map_err(|error| error.kind())
        };
        assert_eq!(read(2, 3), Ok(b"234".to_vec()));
        assert_eq!(read(10, 0), Ok(vec![]));
        assert_eq!(read(8, 3), Err(io::ErrorKind::UnexpectedEof));
    }
}
