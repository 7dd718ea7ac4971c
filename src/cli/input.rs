//! Standard input as its caller has left it to us.
//!
//! One that does not block (whoever shares it with us may have set that for all) is waited for: that nothing has come
//! yet is no error. One that cannot be read is an error and not, as the standard library has it, one without a letter
//! in it; a closed one was replaced by an empty one when the program began.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read};
use std::os::fd::AsFd;

/// Standard input, read as it comes.
pub struct Input;

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        loop {
            match nix::unistd::read(&stdin, into) {
                Err(Errno::EAGAIN) => {
                    poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
                }
                read => return Ok(read?),
            }
        }
    }
}
