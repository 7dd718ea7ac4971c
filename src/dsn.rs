//! Composes an RFC 3464 report; never answers a null reverse-path.
