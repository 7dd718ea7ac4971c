//! What a file is, by its first octets and its name: the media type of an attachment (RFC 2045 §5).
//!
//! Octets go before the name, since a picture that is called a text is a picture; but
//! a container (zip, gzip, XML, OLE) says less than its name does, and whatever reads
//! as text is what its name says: magic numbers of two letters begin words, too.

/// How many octets of a file are looked at.
pub const HEAD: usize = 8 * 1024;

/// Types that many others are made of.
const CONTAINERS: [&str; 6] = [
    "application/zip",
    "application/gzip",
    "application/x-ole-storage",
    "application/octet-stream",
    "text/xml",
    "application/xml",
];

/// The type of a file, with a charset where it is text. `head`: its first octets, at most [`HEAD`] of them.
pub fn kind(name: &str, head: &[u8]) -> String {
    let named = mime_guess::from_path(name).first().map(|kind| kind.essence_str().to_owned());
    let found = infer::get(head).map(|kind| kind.mime_type().to_owned());
    let kind = match (found, named) {
        _ if head.is_empty() => "application/octet-stream".to_owned(),
        (found, named) if is_text(head) => {
            named.or(found.filter(|kind| is_textual(kind))).unwrap_or("text/plain".into())
        }
        (Some(found), Some(named)) if CONTAINERS.contains(&found.as_str()) && !named.starts_with("text/") => named,
        (Some(found), _) => found,
        (None, Some(named)) if !named.starts_with("text/") => named,
        // Text of another character set than ours is text all the same; what has a NUL is none.
        (None, named) if !head.contains(&0) => named.unwrap_or_else(|| "application/octet-stream".to_owned()),
        (None, _) => "application/octet-stream".to_owned(),
    };
    // RFC 2046 §5.2.1: these must not be encoded, and a file has to arrive octet for octet.
    if kind.starts_with("message/") || kind.starts_with("multipart/") {
        return "application/octet-stream".to_owned();
    }
    if kind.starts_with("text/") && is_text(head) { format!("{kind}; charset=utf-8") } else { kind }
}

/// Types that magic numbers find in what is text.
fn is_textual(kind: &str) -> bool {
    kind.starts_with("text/") || matches!(kind, "application/pdf" | "application/rtf" | "application/postscript")
}

/// Whether it reads as UTF-8 text, as far as it goes: no control characters but those of text.
fn is_text(head: &[u8]) -> bool {
    let control = |octet: &u8| octet.is_ascii_control() && !b"\t\n\r\x0c\x1b\x08".contains(octet);
    // The last character may go on behind the head.
    let is_utf8 = std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    is_utf8 && !head.iter().any(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_go_before_the_name_and_the_name_before_its_container() {
        let (png, zip) =
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &b"PK\x03\x04\x14\0\0\0\x08\0 a container of files \0\0"[..]);
        for (name, head, want) in [
            ("holiday.jpg", png, "image/png"),
            ("holiday", png, "image/png"),
            ("notes.txt", png, "image/png"),
            ("report.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "application/pdf"),
            ("files.zip", zip, "application/zip"),
            ("letter.odt", zip, "application/vnd.oasis.opendocument.text"),
            ("a.tar.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "application/gzip"),
            ("notes.txt", b"BMW and GIF8 are words\n", "text/plain; charset=utf-8"),
            ("README", "Gr\u{fc}\u{df}e\n".as_bytes(), "text/plain; charset=utf-8"),
            ("table.csv", b"a,b\n1,2\n", "text/csv; charset=utf-8"),
            ("page.html", b"<!doctype html><p>hi", "text/html; charset=utf-8"),
            ("old.txt", b"Gr\xfc\xdfe\n", "text/plain"),
            ("core.txt", b"\x01\0\0\0\x02", "application/octet-stream"),
            ("data.json", b"{\"a\": 1}", "application/json"),
            ("picture.svg", b"<?xml version=\"1.0\"?><svg/>", "image/svg+xml"),
            ("letter.eml", b"From: a@b\n\nhi\n", "application/octet-stream"),
            ("unknown", b"\x01\x02\xff\xfe", "application/octet-stream"),
            ("empty.txt", b"", "application/octet-stream"),
            ("half.txt", &"\u{20ac}".as_bytes()[..2], "text/plain; charset=utf-8"),
        ] {
            assert_eq!(kind(name, head), want, "{name}");
        }
    }
}
