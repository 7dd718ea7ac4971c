//! One attempt on a queued letter: claim, relay, settle, report.
