//! The wire: the only place that speaks SMTP, as a client and as a server.
