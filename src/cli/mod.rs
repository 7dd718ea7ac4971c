//! The roof: words in, calls, words out. The only floor that knows sentences, exit codes, clock and environment.

pub mod host;
pub mod log;
pub mod meaning;
pub mod options;
