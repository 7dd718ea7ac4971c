//! Channel binding: octets that only the two ends of one TLS session can both compute.
//!
//! Which one, since SMTP has no way to ask: `tls-exporter` in TLS 1.3, where it is the standard and what GNU SASL
//! (Exim) and Dovecot 2.4 know; then `tls-server-end-point`, which binds to the server's certificate and is all
//! there is in TLS 1.2: `tls-unique` is broken without extended master secrets (RFC 7627) and rustls does not
//! give it out, nor does it tell whether they are used, without which RFC 9266 forbids `tls-exporter` there. A server
//! that refuses the first for its kind, and says so, is tried with the second; none is ever tried without.
//! RFC 5056, RFC 5929, RFC 9266.

use crate::smtp::certificate;
use rustls::{ClientConnection, ProtocolVersion};

/// What ties an exchange to its TLS session, so that it is of no use in another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// As IANA has it registered.
    pub name: &'static str,
    /// The octets that both ends compute.
    pub data: Vec<u8>,
}

/// What a session can be bound by, the best first.
pub fn bindings(tls: &ClientConnection) -> Vec<Binding> {
    let exporter = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => {
            tls.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok()
        }
        _ => None,
    };
    let leaf = tls.peer_certificates().and_then(|chain| chain.first());
    let end_point = leaf.and_then(|leaf| certificate::end_point(leaf));
    let named = [("tls-exporter", exporter), ("tls-server-end-point", end_point)];
    named.into_iter().filter_map(|(name, data)| Some(Binding { name, data: data? })).collect()
}
