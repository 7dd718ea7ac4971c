//! What a failed handshake means, in a sentence with the relay as its subject.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible};

/// As [`sentence`], where it was TLS that a wait failed for.
pub fn sentence_of(error: &std::io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<Error>().map(sentence)
}

/// What a failed handshake or a broken record means, with the relay as the subject of the sentence.
pub fn sentence(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(refusal))) => refusal.to_string(),
        // Signatures by short keys are not even looked at.
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "did not show that its certificate is its own; or the key is too weak (RSA with less than 2048 bits)"
                .to_owned()
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "answered with something that is not TLS (is it the right port, and the right tls setting?)".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "demands a certificate of us; set cert_file and key_file".to_owned()
        }
        Error::AlertReceived(alert) if is_about_us(error) => {
            format!("does not accept our certificate (cert_file): it broke TLS off with the alert {alert:?}")
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "speaks no version of TLS that we do (1.2 and 1.3, or what tls_min leaves of them)".to_owned()
        }
        Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig) => {
            "speaks TLS 1.2 at the most, and tls_min demands 1.3".to_owned()
        }
        Error::AlertReceived(alert) => format!("broke TLS off with the alert {alert:?}"),
        Error::PeerIncompatible(why) => format!("offers no TLS that we accept: {why:?}"),
        _ => format!("broke TLS: {error}"),
    }
}

/// Whether it is the algorithm of a signature that is at fault. The library names it, and all others, by their numbers.
pub(super) fn is_signed_weakly(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        )
    )
}

/// Whether the server refuses our certificate, or the lack of one. In TLS 1.3 it says so only when our end of the
/// handshake is long done.
pub(in crate::smtp) fn is_about_us(error: &Error) -> bool {
    use AlertDescription as Alert;
    matches!(
        error,
        Error::AlertReceived(
            Alert::CertificateRequired
                | Alert::NoCertificate
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
        )
    )
}
