//! One attempt through an account: account, envelope and message in, a [`Report`](crate::outcome::Report) out.
