use super::*;
use crate::config::import::emit::emit;
use proptest::prelude::*;

#[test]
fn a_nexthop_is_a_host_and_perhaps_a_port() {
    for (text, want) in [
        ("smtp.example.com", ("smtp.example.com", None)),
        ("smtp.example.com:587", ("smtp.example.com", Some("587"))),
        ("[smtp.example.com]:submission", ("[smtp.example.com]", Some("submission"))),
        ("[2001:db8::1]", ("[2001:db8::1]", None)),
        ("2001:db8::1", ("2001:db8::1", None)),
    ] {
        assert_eq!(host_and_port(text), want, "{text}");
    }
}

#[test]
fn a_files_name_says_whose_it_is() {
    for (path, want) in [
        ("/etc/ssmtp/ssmtp.conf", Some(Program::Ssmtp)),
        ("/etc/nullmailer", Some(Program::Nullmailer)),
        ("remotes", Some(Program::Nullmailer)),
        ("main.cf", Some(Program::Postfix)),
        ("/home/a/.msmtprc", Some(Program::Msmtp)),
        ("/home/a/.config/msmtp/config", Some(Program::Msmtp)),
        ("/home/a/.mailrc", Some(Program::Mailrc)),
        ("/home/a/config", None),
    ] {
        assert_eq!(Program::of(Path::new(path)), want, "{path}");
    }
}

/// Imports a file of that text.
fn imported(program: Program, text: &str) -> Result<Imported, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, text).unwrap();
    read(program, &file, &[], &Surroundings::default())
}

#[test]
fn no_secret_and_no_line_of_a_stranger_stands_in_what_is_written() {
    let text = "mailhub=relay.example\nUseTLS=YES\nAuthUser=u\nAuthPass=s3cret\nOdd\u{1b}\r[account.evil]=x\n";
    let written = emit(&imported(Program::Ssmtp, text).unwrap(), Path::new("/etc/pillarbox/config.toml")).unwrap();
    assert!(
        !written.toml.contains("s3cret")
            && !written.toml.contains("\n[account.evil]")
            && !written.toml.contains('\u{1b}')
    );
    assert_eq!(written.secrets.len(), 1);
    assert_eq!(written.secrets[0].1.as_str(), "s3cret");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_is_read_is_written_as_it_was_meant(
        lines in proptest::collection::vec("(mailhub|AuthUser|AuthPass|root|hostname|UseTLS|UseSTARTTLS|TLSCert|RewriteDomain|x)=[ -~\u{e4}]{0,12}", 0..8),
        which in 0_usize..6,
    ) {
        let text = lines.join("\n");
        let text = match PROGRAMS[which].1 {
            Program::Msmtp => text.replace('=', " ").replace("mailhub", "host").replace("AuthUser", "user").replace("AuthPass", "password"),
            Program::Postfix => text.replace("mailhub", "relayhost"),
            Program::Dma => text.replace('=', " ").replace("mailhub", "SMARTHOST").replace("root", "MASQUERADE").replace("x ", "FINGERPRINT "),
            Program::Nullmailer => text.replace("mailhub=", "smtp.example.com smtp --user=").replace("AuthPass=", "h smtp --pass="),
            Program::Mailrc => text.replace("mailhub=", "set mta=smtp://").replace("AuthUser=", "set from=").replace("AuthPass=", "set password="),
            Program::Ssmtp => text,
        };
        if let Ok(imported) = imported(PROGRAMS[which].1, &text) {
            let written = emit(&imported, Path::new("/home/a/.config/pillarbox/config.toml"));
            prop_assert!(written.is_ok(), "{text}\n{written:?}");
        }
    }
}
