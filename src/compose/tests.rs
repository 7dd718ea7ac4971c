//! What is composed: the parts, their order and their encodings, octet by octet.

use super::*;
use crate::message::InMemory;
use crate::message::address::parse_list;

fn text(octets: &[u8], label: Label) -> Text {
    let mut input = octets;
    Text::new(&Message::read_text(&mut input, LoneDot::IsText, Box::new(InMemory::default())).unwrap(), label).unwrap()
}

fn draft(body: &[u8]) -> Draft {
    Draft {
        fields: vec![field("Subject", "x")],
        text: text(body, Label::default()),
        html: None,
        files: Vec::new(),
        unique: "UNIQUE".to_owned(),
    }
}

fn composed(draft: Draft) -> String {
    let message = compose(draft, Box::new(InMemory::default())).unwrap();
    let mut octets = Vec::new();
    message.reader().unwrap().read_to_end(&mut octets).unwrap();
    String::from_utf8(octets).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_text_travels_in_the_plainest_way_that_every_relay_takes() {
    let long = "x".repeat(999);
    for (body, charset, encoding) in [
        (b"hi\n".to_vec(), "us-ascii", "7bit"),
        (b"Bcc: not a header\n\nhi\n".to_vec(), "us-ascii", "7bit"),
        (b"".to_vec(), "us-ascii", "7bit"),
        ("Gr\u{fc}\u{df}e aus K\u{f6}ln und der Umgebung\n".into(), "utf-8", "quoted-printable"),
        ("\u{65e5}\u{672c}\u{8a9e}\n".into(), "utf-8", "base64"),
        (b"Gr\xfc\xdfe aus dem Norden\n".to_vec(), "unknown-8bit", "quoted-printable"),
        (long.into(), "us-ascii", "quoted-printable"),
    ] {
        let got = composed(draft(&body));
        let want = format!(
            "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset={charset}\n\
             Content-Transfer-Encoding: {encoding}\n\n"
        );
        assert!(got.starts_with(&want), "{got}");
        assert!(got.lines().all(|line| line.len() <= 76) && got.is_ascii(), "{got}");
    }
    assert!(composed(draft(b"Bcc: not a header\n\nhi\n")).ends_with("\n\nBcc: not a header\n\nhi\n"));
}

#[test]
fn what_the_writer_says_of_the_text_holds() {
    let label = |kind: &str, encoding: Option<&str>, charset: Option<&str>| Label {
        kind: Some(kind.to_owned()),
        encoding: encoding.map(str::to_owned),
        charset: charset.map(str::to_owned),
    };
    for (body, label, want) in [
        (&b"<p>"[..], label("text/html", None, None), "text/html; charset=us-ascii\nContent-Transfer-Encoding: 7bit"),
        (b"aGk=\n", label("image/png", Some("base64"), None), "image/png\nContent-Transfer-Encoding: base64"),
        (
            b"\xfc und\n",
            label("text/plain", None, Some("iso-8859-1")),
            "text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable",
        ),
        (
            b"\xfc und\n",
            label("text/x; charset=koi8-r", Some("7bit"), None),
            "text/x; charset=koi8-r\nContent-Transfer-Encoding: quoted-printable",
        ),
        (
            b"--b\n\n\xc3\xbc\n--b--\n",
            label("multipart/mixed; boundary=b", None, None),
            "multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit",
        ),
    ] {
        assert_eq!(text(body, label).fields().replace("\r\n", "\n"), format!("Content-Type: {want}\n"));
    }
}

#[test]
fn html_is_an_alternative_and_files_come_behind_it() {
    let file = |name: &str, octets: &'static [u8]| Attachment {
        name: name.to_owned(),
        kind: "text/plain; charset=utf-8".to_owned(),
        content: Box::new(octets),
    };
    let html = || Some(text(b"<p>hi</p>\n", Label { kind: Some("text/html".to_owned()), ..Label::default() }));
    let got = composed(Draft {
        html: html(),
        files: vec![file("a b.txt", b"one\n"), file("\u{fc}\nX: y/..", b"")],
        ..draft(b"hi\n")
    });
    let want = "Subject: x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"=_UNIQUE\"\n\n--=_UNIQUE\n\
        Content-Type: multipart/alternative; boundary=\"=_UNIQUE.a\"\n\n--=_UNIQUE.a\n\
        Content-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 7bit\n\nhi\n\n--=_UNIQUE.a\n\
        Content-Type: text/html; charset=us-ascii\nContent-Transfer-Encoding: 7bit\n\n<p>hi</p>\n\n--=_UNIQUE.a--\n\n\
        --=_UNIQUE\n\
        Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\
        Content-Disposition: attachment; filename=\"a b.txt\"\n\nb25lCg==\n--=_UNIQUE\n\
        Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\
        Content-Disposition: attachment;\n filename*0*=utf-8''%C3%BC_X%3A%20y_..\n\n\n--=_UNIQUE--\n";
    assert_eq!(got, want);
    assert!(composed(Draft { html: html(), ..draft(b"") }).contains("\nContent-Type: text/html; charset=us-ascii\n"));
}

#[test]
fn no_text_of_a_writer_ends_a_line_of_the_header() {
    for (name, value, want) in [
        ("Subject", "a\r\nBcc: evil@x", "Subject: a  Bcc: evil@x\r\n"),
        ("Subject", "Gr\u{fc}\u{df}e\nBcc: e@x", "Subject: =?utf-8?B?R3LDvMOfZQ==?= Bcc: e@x\r\n"),
        ("Reply-To", "J\u{f6}rg <j@x>", "Reply-To: =?utf-8?B?SsO2cmc=?= <j@x>\r\n"),
    ] {
        assert_eq!(String::from_utf8_lossy(field(name, value).raw()), want);
    }
    let long = field("Subject", &"y".repeat(3_000));
    assert!(long.raw().split(|octet| *octet == b'\n').all(|line| line.len() < 100));
    assert!(
        is_field_name("X-Y")
            && !is_field_name("X Y")
            && !is_field_name("X:Y")
            && !is_field_name("X\nY")
            && !is_field_name("")
    );
}

#[test]
fn addresses_keep_their_names_and_fold_between_each_other() {
    let list = parse_list("Bob Builder <bob@x.org>, root, \"O, A\" <a@b>, J\u{f6}rg <j@x>, \"john doe\"@y").unwrap();
    let text = String::from_utf8(addresses("To", &list).raw().to_vec()).unwrap();
    assert_eq!(
        text,
        "To: Bob Builder <bob@x.org>, root, \"O, A\" <a@b>, =?utf-8?B?SsO2cmc=?= <j@x>,\r\n \"john doe\"@y\r\n"
    );
}

#[test]
fn files_of_any_size_pass_in_pieces() {
    struct Endless(u64, usize);
    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1.max(into.len());
            assert!(into.len() <= CHUNK, "{} octets at once", into.len());
            let n = usize::try_from(self.0.min(into.len() as u64)).unwrap();
            into[..n].fill(7);
            self.0 -= n as u64;
            Ok(n)
        }
    }
    /// Counts, and keeps nothing.
    struct Count(u64);
    impl Store for Count {
        fn write(&mut self, octets: &[u8]) -> io::Result<()> {
            assert!(octets.len() < 1 << 20);
            self.0 += octets.len() as u64;
            Ok(())
        }
        fn finish(self: Box<Self>) -> io::Result<Arc<dyn Content>> {
            Ok(Arc::new(self.0.to_string().into_bytes()))
        }
    }
    let files = vec![Attachment {
        name: "big".into(),
        kind: "application/octet-stream".into(),
        content: Box::new(Endless(20 << 20, 0)),
    }];
    let message = compose(Draft { files, ..draft(b"hi\n") }, Box::new(Count(0))).unwrap();
    let mut count = String::new();
    message.body().reader().unwrap().read_to_string(&mut count).unwrap();
    assert!(count.parse::<u64>().unwrap() > (20 << 20) / 57 * 78, "{count}");
}
