//! s-nail's file as s-nail reads it: words, branches, macros, relays, and every mistake with its place.

use super::*;
use crate::config::{Auth, Host, PasswordSource, Tls};
use proptest::prelude::*;

/// Reads a mailrc in `/home/a`, with some other files beside it.
fn read_with(text: &str, files: &[(&str, &str)]) -> Result<Option<Reading>, Vec<String>> {
    let mut source = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| Zeroizing::new((*text).to_owned())).ok_or(NotSourced::Missing)
    };
    let problems = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect();
    read(Path::new("/home/a/.mailrc"), text, Some(Path::new("/home/a")), &mut source).map_err(problems)
}

/// The accounts in short: `name host:port tls auth user:password from`.
fn told(text: &str) -> Vec<String> {
    let reading = read_with(text, &[("/home/a/more", MORE), ("/home/a/loop", "source loop\n")])
        .unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    let account = |account: &crate::config::Account| {
        let Host::Tcp { name, port } = &account.hosts[0] else { panic!("{account:?}") };
        let tls = match account.tls {
            Tls::StartTls | Tls::Opportunistic => "starttls",
            Tls::Implicit => "implicit",
            Tls::Off => "none",
        };
        let auth = match account.auth {
            Auth::Auto => "auto",
            Auth::Off => "off",
            Auth::Plain => "plain",
            Auth::Login => "login",
            Auth::CramMd5 => "cram-md5",
            Auth::OAuthBearer => "oauthbearer",
            other => panic!("{other:?}"),
        };
        let password = match &account.password {
            Some(PasswordSource::Literal(password)) => password.to_string(),
            Some(PasswordSource::Netrc(None)) => "(netrc)".to_owned(),
            Some(other) => format!("({other:?})"),
            None => "-".to_owned(),
        };
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        format!("{} {name}:{port} {tls} {auth} {}:{password} {}", account.name, or(&account.user), or(&account.from))
    };
    reading.map(|reading| reading.settings.accounts.iter().map(account).collect()).unwrap_or_default()
}

const MORE: &str = "set mta=smtps://u:p@sourced\n";

#[test]
fn a_relays_url_is_read_in_every_form() {
    for (text, expected) in [
        ("set mta=smtp://relay", "default relay:25 none auto -:- -"),
        ("set mta=smtp://u:p@relay smtp-use-starttls", "default relay:25 starttls auto u:p -"),
        ("set smtp-use-starttls mta=submission://u:p@relay", "default relay:587 starttls auto u:p -"),
        ("set mta=smtps://u:p@relay", "default relay:465 implicit auto u:p -"),
        ("set mta=submissions://u:p@relay/", "default relay:465 implicit auto u:p -"),
        ("set mta=SMTPS://u:p@relay:4465", "default relay:4465 implicit auto u:p -"),
        ("set mta=smtps://wings%3Aof:p%40s%25%2F%C3%A4@relay", "default relay:465 implicit auto wings:of:p@s%/ä -"),
        ("set mta=smtps://me@example.org:p@relay", "default relay:465 implicit auto me@example.org:p -"),
        ("set mta=smtps://u:p:q@[2001:db8::1]:465", "default 2001:db8::1:465 implicit auto u:p:q -"),
        ("set mta=smtp://u:p@[::1]", "default ::1:25 none auto u:p -"),
        ("set mta=smtp://u:p@localhost:2525", "default localhost:2525 none auto u:p -"),
        (
            "set smtp=relay:587 smtp-use-starttls smtp-auth=login smtp-auth-user=u smtp-auth-password=p",
            "default relay:587 starttls login u:p -",
        ),
        ("set smtp=smtps://relay mta=/usr/sbin/sendmail", "default relay:465 implicit auto -:- -"),
        ("set mta=smtps://relay user=u password=p from='A B <a@b.org>'", "default relay:465 implicit auto u:p a@b.org"),
        ("set mta=smtps://u@relay smtp-auth=none", "default relay:465 implicit off u:- -"),
        ("set mta=smtps://u@relay netrc-lookup", "default relay:465 implicit auto u:(netrc) -"),
        (
            "set mta=smtps://u@relay netrc-lookup netrc=~/n",
            "default relay:465 implicit auto u:(Netrc(Some(\"/home/a/n\"))) -",
        ),
        ("set mta=smtps://u:p@relay from=root", "default relay:465 implicit auto u:p root"),
        (
            "set mta=smtps://u%40x:p@relay from=a@b hostname=box smtp-hostname=",
            "default relay:465 implicit auto u@x:p u@box",
        ),
        ("set mta=smtps://u:p@relay from=a@b smtp-hostname=c", "default relay:465 implicit auto u:p u@c"),
    ] {
        assert_eq!(told(text), [expected], "{text}");
    }
}

#[test]
fn without_a_relay_there_is_no_configuration() {
    for text in [
        "",
        "set mta=/usr/sbin/sendmail\nset folder=\"~/Mail\n",
        "set mta=\"/usr/local/bin/my mta\n",
        "set mta=test",
        "set mta=file:///usr/sbin/sendmail\n",
        "set smtp\n",
        "set mta=smtp://relay\nunset mta\n",
        "set mta=smtp://relay nomta\n",
        "source nowhere\n",
        "set password=\"x\n",
        "# set mta=smtp://relay",
        "if terminal\nset mta=smtp://relay\nendif\n",
        "define x {\nset mta=smtp://relay\n}\n",
    ] {
        assert!(matches!(read_with(text, &[]), Ok(None)), "{text}");
    }
}

#[test]
fn words_are_quoted_as_s_nail_quotes_them() {
    // Checked against s-nail 14.9.24, but for $'…' without v15-compat, which it takes by the letter.
    for (word, old, shell) in [
        ("a\\ b", "a b", "a b"),
        ("'a b'", "a b", "a b"),
        ("\"a b\"", "a b", "a b"),
        ("\"q\\\"r\"", "q\"r", "q\"r"),
        ("\"x\\\\y\"", "x\\\\y", "x\\y"),
        ("\"p\\$w\"", "p\\$w", "p$w"),
        ("\"a$HOME\"", "a$HOME", "a/home/a"),
        ("a${HOME}b", "a${HOME}b", "a/home/ab"),
        ("'a$HOME'", "a$HOME", "a$HOME"),
        ("pa$$word$", "pa$$word$", "pa$"), // $word is not set
        ("$'x\\x41\\'\\101\\u00e4\\tz'", "xA'Aä\tz", "xA'Aä\tz"),
        ("$'\\xc3\\xa4'", "ä", "ä"),
        ("a\"b\"'c'd", "abcd", "abcd"),
        ("c#d", "c#d", "c#d"),
        ("a;b", "a;b", "a"),
        ("\\\\", "\\", "\\"),
        ("a=b", "a=b", "a=b"),
    ] {
        let line = format!("set mta=smtps://u@relay password={word} # comment");
        let password = |text: &str| told(text)[0].split("u:").nth(1).unwrap().trim_end_matches(" -").to_owned();
        assert_eq!(password(&line), old, "{word}");
        assert_eq!(password(&format!("wysh {line}")), shell.replace("pa$", "pa$$"), "{word}");
        assert_eq!(password(&format!("set v15-compat=yes\n{line}")), shell.replace("pa$", "pa$$"), "{word}");
    }
}

#[test]
fn lines_go_on_behind_a_backslash_and_so_do_comments() {
    let text =
        "# a comment \\\nset mta=smtps://wrong\n  set \\\n  mta=\\\n   smtps://u:p@relay \\\n\tfrom='a@\\\n   b.org'";
    assert_eq!(told(text), ["default relay:465 implicit auto u:p a@b.org"]);
}

#[test]
fn the_most_particular_variable_of_a_chain_wins() {
    let text = "set mta=submission://wings%3Aof@A.Dove:587\n\
                set user=nobody password=plain password-a.dove=host smtp-use-starttls-a.dove:587\n\
                set smtp-auth=none smtp-auth-wings:of@a.dove:587=login\n";
    assert_eq!(told(text), ["default A.Dove:587 starttls login wings:of:host -"]);
    let text = format!("{text}set 'password-wings:of@a.dove=user'\n");
    assert_eq!(told(&text), ["default A.Dove:587 starttls login wings:of:user -"]);
    let old =
        "set smtp=smtps://relay from=a@b.org smtp-auth-user=x smtp-auth-user-a@b.org=y smtp-auth-password-a@b.org=z";
    assert_eq!(told(old), ["default relay:465 implicit auto y:z a@b.org"]);
    assert_eq!(told("set mta=smtps://relay user-relay=y user=x password=z"), ["default relay:465 implicit auto y:z -"]);
}

#[test]
fn each_account_block_is_an_account_over_what_the_file_sets() {
    let text = "set v15-compat from=a@b.org\n\
                account work {\n  set mta=smtps://w:p@work\n  set from=a@work.example\n}\n\
                account home {\n  set mta=submission://h:p@home\n}\n\
                account reading {\n set folder=imaps://x\n}\n\
                set smtp-use-starttls\n";
    let expected = ["work work:465 implicit auto w:p a@work.example", "home home:587 starttls auto h:p a@b.org"];
    assert_eq!(told(text), expected);
    let chosen = read_with(&format!("{text}account home\n"), &[]).unwrap().unwrap().settings;
    assert_eq!(chosen.default.as_deref(), Some("home"));
    let with_default = format!("{text}set mta=smtp://relay\n");
    assert_eq!(told(&with_default)[0], "default relay:25 starttls auto -:- a@b.org");
    assert_eq!(told(&with_default).len(), 4, "what is not set in a block is the file's");
}

#[test]
fn macros_are_called_with_parameters() {
    let text = "set v15-compat=yes\ndefine relay {\n  set mta=smtps://u:p@$1 from=\"${2}@b.org\"\n}\n\
                define local {\n  localopts yes; set from=wrong@b.org\n}\n\
                account one {\n  \\call relay one.example a\n}\n\
                account two {\n  call relay two b; call local; call_if none\n}\n";
    let expected = ["one one.example:465 implicit auto u:p a@b.org", "two two:465 implicit auto u:p b@b.org"];
    assert_eq!(told(text), expected);
}

#[test]
fn files_are_sourced_relative_to_the_home() {
    for text in [
        "source ~/more",
        "source more",
        "so '/home/a/more'",
        "source_if none; source_if more",
        "define m {\nsource more\n}\ncall m",
    ] {
        assert_eq!(told(text), ["default sourced:465 implicit auto u:p -"], "{text}");
    }
    let reading = read_with("source more\nset password=x", &[("/home/a/more", MORE)]).unwrap().unwrap();
    assert_eq!(reading.secret_files, [PathBuf::from("/home/a/more")]);
}

#[test]
fn branches_are_taken_as_when_mail_is_sent_from_a_script() {
    for (text, host) in [
        ("if terminal\nset mta=smtp://a\nelse\nset mta=smtp://b\nendif", "b"),
        ("if send\nset mta=smtp://a\nelse\nset mta=smtp://b\nendif", "a"),
        ("set x=y\nif $x == \"y\"\nset mta=smtp://a\nelif 1\nset mta=smtp://b\nelse\nset mta=smtp://c\nendif", "a"),
        ("wysh set mta=smtp://b; if \"$tls-features\" =% ,+x,; wysh set mta=smtp://a; endif", "b"),
        ("set mta=smtp://b\nif $x =~ y\nset mta=smtp://a\nelse\nset mta=smtp://c\nendif", "b"),
        ("set mta=smtp://b\nif 0\nif 1\nset mta=smtp://a\nendif\ndefine x {\nendif\n}\nset mta=smtp://c\nendif", "b"),
        ("if 1\nif 0\nelse\nset mta=smtp://a\nendif\nelse\nset mta=smtp://b\nendif", "a"),
        ("set mta=smtp://b\nif 0\nif 1\nif 1\nset mta=smtp://a\nendif\nelse\nset mta=smtp://a\nendif\nendif", "b"),
        ("if ! -N none && -Z none\nset mta=smtp://a\nendif\nendif\nelse\n", "a"),
    ] {
        assert_eq!(told(text), [format!("default {host}:25 none auto -:- -")], "{text}");
    }
}

/// A file that is nothing else is read in a moment, and not in minutes.
#[test]
fn conditions_within_conditions_cost_no_more_than_others() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(told(&("if 1\n".repeat(400_000) + "set mta=smtp://a\n"))));
    let told = is_done.recv_timeout(std::time::Duration::from_mins(2)).expect("it is still reading");
    assert_eq!(told, ["default a:25 none auto -:- -"]);
}

#[test]
fn what_concerns_reading_mail_is_skipped_without_a_word() {
    let text = "set ask askcc append dot save crt=20 folder=+x prompt='? \nunset hold\nignore received message-id\n\
                alias bob bob@x.org 'Bob <b@y>'\nretain from to\ncommandalias V '\\'call V\nbind base $'\\n' x\n\
                shortcut a b\nset pipe-text/plain=\"?* x\n!ls | cat\n\"\nmlist '@x\\.y$'\ngroup x y\n}\n\
                vput csop x trim a\nset mta=smtp://relay\ncolour 256 x\nheaderpick type retain from_\necho $HOME `x\n";
    assert_eq!(told(text), ["default relay:25 none auto -:- -"]);
}

#[test]
fn aliases_stand_for_addresses_and_for_nothing_else() {
    let text = "alias bob bob@x.org 'Bob <b@y>'\nalias team bob, c@x.org\nalias bob d@x.org\ngroup gone a@x\n\
                alias bob\n\
                alias log \"|cat\" a@x\nalias file /var/x\nalias default a@x\nalias bad 'a b'\nunalias gone\n\
                set mta=smtp://relay\naccount x {\nalias in a@x\n}\n";
    let reading = read_with(text, &[]).unwrap().unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [pair("bob", "bob@x.org, Bob <b@y>, d@x.org"), pair("team", "bob,, c@x.org")];
    assert_eq!(reading.settings.names.aliases, expected);
}

/// In time that grows with the square of the aliases this would take minutes.
#[test]
fn a_file_of_many_aliases_is_read_in_one_pass() {
    let lines = |begin: &str, end: &str| (0..70_000).map(|n| format!("{begin}{n}{end}\n")).collect::<Vec<_>>().concat();
    let text = format!("set mta=smtp://h\n{}{}alias b c\n", lines("alias a", " b"), lines("unalias a", ""));
    let text = text.replacen("unalias a0\n", "", 1).replacen("unalias a69999\n", "", 1);
    let reading = read_with(&text, &[]).unwrap().unwrap();
    let names: Vec<&str> = reading.settings.names.aliases.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a0", "a69999", "b"]);
}

#[test]
fn a_mistake_is_told_with_its_place() {
    for (text, expected) in [
        ("set mta=smtps://relay\naccount x {\nset from=a@b", "2:1: this block is never closed"),
        ("define x {\nset mta=smtps://relay\ncall x\n", "1:1: this block is never closed"),
        ("define x {\ncall x\n}\ncall x\nset mta=smtps://relay\n", "2:6: \"x\" is called within itself"),
        ("set mta=smtps://u:p@relay password=\"x", "1:27: password: this quote is never closed"),
        ("set mta=\"smtps://u:p@relay", "1:5: mta: this quote is never closed"),
        ("\n  set from='a@b' \\\n   mta=smtps://u:%zz@relay", "3:4: mta: the password has a % without"),
        ("set mta=smtps://u:p@relay:0", "1:5: mta: the host \"0\" is no port"),
        ("set mta=smtps://u:p@", "1:5: mta: the host is empty"),
        ("set mta=smtps://u:p@relay/path", "1:5: mta: the host has a '/' in it"),
        ("set mta=smtp://u:p@relay", "1:5: mta: the password would go to relay in clear; set smtp-use-starttls"),
        ("set mta=smtps://u@relay", "1:5: mta: there is a user but no password"),
        ("set mta=smtps://relay smtp-auth=login", "1:5: mta: smtp-auth demands a user"),
        ("set mta=smtps://u:p@relay smtp-auth=gssapi", "1:27: smtp-auth: \"gssapi\" is not known"),
        (
            "set mta=smtps://u:p@relay smtp-auth=PLIAN",
            "1:27: smtp-auth: \"PLIAN\" is not known; allowed: plain, login, cram-md5, oauthbearer, xoauth2, external, \
             none",
        ),
        ("set mta=smtps://relay netrc-lookup", "1:23: netrc-lookup: the user is not taken from there"),
        ("set mta=smtps://u@relay netrc-lookup netrc-pipe=x", "1:25: netrc-lookup: netrc-pipe is not in this version"),
        ("set mta=smtps://u:p@relay from='a b c'", "1:27: from: at column"),
        ("set mta=smtps://u:p@relay tls-fingerprint=abcd", "1:27: tls-fingerprint: has 2 octets"),
        ("set mta=smtps://u:p@relay tls-ca-file=x", "1:27: tls-ca-file: \"x\" is not absolute"),
        ("set mta=smtps://u@relay\nset password = x", "2:14: password: write password=VALUE"),
        ("set mta=smtps://u:p@relay\nsource none", "2:8: source: there is no /home/a/none"),
        ("set mta=smtps://u:p@relay\nsource 'rm -rf x|'", "2:8: source: no command is run"),
        ("set mta=smtps://u:p@relay\ncall none", "2:6: there is no macro \"none\""),
        ("set mta=smtps://u:p@relay\naccount x y {\n}", "2:8: write: account NAME {"),
        ("set mta=smtps://u:p@relay password=\u{fffd}", "1:27: password: this is not UTF-8"),
    ] {
        let problems = read_with(text, &[]).err().unwrap_or_else(|| panic!("{text}"));
        let expected = format!("/home/a/.mailrc:{expected}");
        assert!(problems.iter().any(|problem| problem.starts_with(&expected)), "{text}: {problems:#?}");
    }
}

#[test]
fn every_mistake_is_told_at_once_and_each_one_once() {
    let text = "set from='a b c'\naccount a {\nset mta=smtp://u:p@relay\n}\naccount b {\n\
                set mta=smtps://u:p@relay smtp-auth=x\n}\n";
    let problems = read_with(text, &[]).err().unwrap();
    let places: Vec<&str> =
        problems.iter().map(|problem| problem.split(": ").next().unwrap().rsplit_once("mailrc:").unwrap().1).collect();
    assert_eq!(places, ["1:5", "3:5", "6:27"]);
}

#[test]
fn loops_and_growth_come_to_an_end() {
    let base = "set mta=smtp://relay v15-compat=yes\n";
    for (text, expected) in [
        ("source loop", "sourced within itself"),
        ("source .mailrc", "sourced within itself"),
        ("define a {\ncall a\n}\ncall a", "called within itself"),
        ("define a {\ncall a\ncall a\ncall a\n}\ncall a", "called within itself"),
    ] {
        let problems = read_with(&format!("{base}{text}\n"), &[("/home/a/loop", "source loop\n")]).err().unwrap();
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{text}: {problems:?}");
    }
    let wide = ["a b", "b c", "c d"].map(|pair| {
        let (name, next) = pair.split_once(' ').unwrap();
        format!("define {name} {{\n{}}}\n", format!("call_if {next}\n").repeat(40))
    });
    let wide = read_with(&format!("{base}{}call a\n", wide.concat()), &[]).err().unwrap();
    assert!(wide.len() == 1 && wide[0].contains("do not come to an end"), "{wide:?}");
    let grow = format!("{base}set x=aaaaaaaa\n{}", "set x=$x$x$x$x\n".repeat(100));
    assert!(read_with(&grow, &[]).is_ok());
    let many = format!("{base}set x={}\n{}", "a".repeat(8000), "set y $x $x $x $x $x $x\n".repeat(1000));
    assert!(read_with(&many, &[]).err().unwrap()[0].contains("do not come to an end"));
    let accounts = (0..300).map(|i| format!("account a{i} {{\n}}\n")).collect::<Vec<_>>().concat();
    assert!(read_with(&format!("{base}{accounts}"), &[]).err().unwrap()[0].contains("more than 256 accounts"));
}

#[test]
fn trust_is_read() {
    let text = format!(
        "set mta=smtps://u:p@relay tls-ca-file=~/ca.pem tls-verify=ignore hostname=box.example \
             tls-fingerprint-relay={}",
        ["AB"; 32].join(":")
    );
    let account = read_with(&text, &[]).unwrap().unwrap().settings.accounts.remove(0);
    assert_eq!((account.ca_file, account.pins), (Some("/home/a/ca.pem".into()), vec![[0xab; 32]]));
    assert_eq!(account.helo.as_deref(), Some("box.example"));
}

#[test]
fn an_everyday_mailrc_is_understood() {
    let expected = [
        "default smtp.example.com:25 starttls login USER:PASS you@example.com",
        "Second smtp.example.net:465 implicit login USER:PASS you@example.net",
        "Third smtp.provider.example:465 implicit login USER:PASS USER@provider.example",
    ];
    assert_eq!(told(include_str!("../../../tests/config/everyday.mailrc")), expected);
}

#[test]
fn the_examples_of_the_manual_are_right() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/pillarbox-mailrc.5")).unwrap();
    let blocks = page.split(".Bd -literal").skip(1).filter_map(|rest| rest.split_once('\n')?.1.split(".Ed").next());
    let accounts: Vec<Vec<String>> = blocks.map(|block| told(&block.replace("\\e", "\\"))).collect();
    let expected = [
        vec!["default smtp.example.com:587 starttls auto alice:pass word alice@example.com"],
        vec![
            "default smtp.example.com:587 starttls auto alice:it is a secret alice@example.com",
            "home smtp.example.net:465 implicit auto alice:(netrc) alice@example.net",
        ],
    ];
    assert_eq!(accounts, expected);
}

proptest! {
    #[test]
    fn whatever_is_written_gives_settings_or_problems(text in "\\PC*") {
        let _ = read_with(&text, &[]);
    }

    #[test]
    fn lines_of_a_mailrc_in_any_order_give_settings_or_problems(
        lines in prop::collection::vec((0..14_usize, "[\\PC\n\\\\'\"$;{}=]{0,12}"), 0..24)
    ) {
        let starts = [
            "set mta=smtp://", "set v15-compat=", "wysh set password=", "set ", "unset ", "account ", "define a {\n",
            "}\n", "call a ", "source more", "if ", "else ", "endif\n", "localopts ",
        ];
        let text = lines.iter().map(|(start, rest)| format!("{}{rest}\n", starts[*start])).collect::<Vec<_>>().concat();
        let _ = read_with(&text, &[("/home/a/more", "call a\nsource more\n")]);
    }

    #[test]
    fn any_password_can_be_quoted(password in "[^\\x00\\n\\r\u{fffd}]+") {
        let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
        let text = format!("wysh set mta=smtps://u@relay password=$'{quoted}'\n");
        let account = read_with(&text, &[]).unwrap().unwrap().settings.accounts.remove(0);
        prop_assert_eq!(account.password, Some(PasswordSource::Literal(Zeroizing::new(password))));
    }

    #[test]
    fn any_password_can_be_percent_encoded(password in "[^\\x00\\r\\n]+") {
        let encoded = password.bytes().map(|octet| format!("%{octet:02x}")).collect::<Vec<_>>().concat();
        let text = format!("set mta=smtps://u:{encoded}@relay\n");
        let account = read_with(&text, &[]).unwrap().unwrap().settings.accounts.remove(0);
        prop_assert_eq!(account.password, Some(PasswordSource::Literal(Zeroizing::new(password))));
    }
}
