//! Whole exchanges with servers that are honest, odd, or liars.

use super::*;
use crate::config::Tls;
use crate::outcome::Stage as Place;
use crate::smtp::rehearsal::{Authority, Ended, NAME, Stage, account, rehearse};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::{digest, hmac, pbkdf2};
use rustls::version::{TLS12, TLS13};

fn base64(text: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(text)
}

fn unbase64(text: &str) -> String {
    String::from_utf8(BASE64_STANDARD.decode(text).expect("base64")).unwrap()
}

/// A session with a server that offers those mechanisms in clear on loopback and then plays `script`.
fn in_clear(auth: Auth, offered: &str, secret: &str, script: impl FnOnce(&mut Stage) + Send + 'static) -> Ended {
    let keyword = format!("AUTH {offered}");
    rehearse(&account(auth), secret, move |stage| {
        stage.greet(&[&keyword]);
        script(stage);
    })
}

/// What a SCRAM server may do wrong.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    None,
    /// The server-final-message carries a signature by somebody who does not know the password.
    Signature,
    /// The server's nonce is one of its own.
    Nonce,
    /// One iteration, so that the proof gives the password away.
    Iterations,
    /// 235 in place of the server-final-message.
    NoFinal,
    /// 235 in place of the server-first-message.
    Early,
    /// A refusal in the server-final-message.
    Refusal,
}

/// The other side of SCRAM, from the RFC and without a line of ours. `header` is the GS2 header and the binding's
/// octets, as the server wants them. The password is `pencil`.
fn serve_scram(stage: &mut Stage, mechanism: &str, header: &[u8], lie: Lie) {
    let (pbkdf2, hmac, digest) = if mechanism.starts_with("SCRAM-SHA-1") {
        (pbkdf2::PBKDF2_HMAC_SHA1, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA1_FOR_LEGACY_USE_ONLY)
    } else {
        (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, &digest::SHA256)
    };
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac, key), text).as_ref().to_vec();

    let opening = stage.hear();
    let first = unbase64(opening.strip_prefix(&format!("AUTH {mechanism} ")).expect("the mechanism asked for"));
    if lie == Lie::Early {
        return stage.say("235 welcome");
    }
    let header_end = header.windows(2).position(|pair| pair == b",,").unwrap() + 2;
    let bare = first.strip_prefix(std::str::from_utf8(&header[..header_end]).unwrap()).expect("the GS2 header");
    let nonce = bare.strip_prefix("n=user,r=").unwrap();
    let iterations = if lie == Lie::Iterations { 1 } else { 4096 };
    let nonce = if lie == Lie::Nonce { "mine" } else { nonce };
    let server_first = format!("r={nonce}srv,s={},i={iterations}", base64("salt"));
    stage.say(&format!("334 {}", base64(&server_first)));

    let proof = stage.hear();
    if proof == "*" || proof.is_empty() {
        return stage.say("501 5.7.0 cancelled");
    }
    let answer = unbase64(&proof);
    let (without_proof, proof) = answer.split_once(",p=").unwrap();
    assert_eq!(without_proof, format!("c={},r={nonce}srv", base64(header)));
    let mut salted = vec![0; digest.output_len()];
    pbkdf2::derive(pbkdf2, 4096.try_into().unwrap(), b"salt", b"pencil", &mut salted);
    let text = format!("{bare},{server_first},{without_proof}");
    let client_key = sign(&salted, b"Client Key");
    let signature = sign(digest::digest(digest, &client_key).as_ref(), text.as_bytes());
    let expected: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    if lie == Lie::Refusal || proof != base64(expected) {
        stage.say(&format!("334 {}", base64("e=invalid-proof")));
        assert_eq!(stage.hear(), "");
        return stage.say("535 5.7.8 wrong password");
    }
    if lie == Lie::NoFinal {
        return stage.say("235 welcome");
    }
    let key = if lie == Lie::Signature { b"guess".to_vec() } else { sign(&salted, b"Server Key") };
    stage.say(&format!("334 {}", base64(format!("v={}", base64(sign(&key, text.as_bytes()))))));
    match stage.hear().as_str() {
        "" => stage.say("235 2.7.0 welcome"),
        _ => stage.say("501 5.7.0 cancelled"),
    }
}

#[test]
fn scram_logs_in_and_shows_nothing_that_passwords_could_be_guessed_by() {
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-1"] {
        let ended =
            in_clear(Auth::Auto, mechanism, "pencil", move |stage| serve_scram(stage, mechanism, b"n,,", Lie::None));
        assert!(ended.session.is_ok(), "{}", ended.fault());
        let shown: Vec<&str> =
            ended.notes.iter().map(String::as_str).skip_while(|line| !line.contains("> AUTH")).collect();
        assert_eq!(shown[0], format!("> AUTH {mechanism} ****"));
        assert!(shown[1].starts_with("< 334 "), "{shown:?}");
        assert_eq!(shown[2..], ["> ****", "< 334 ****", "> ", "< 235 2.7.0 welcome"]);
    }
}

#[test]
fn a_server_that_lies_is_never_taken_for_the_one_that_knows_the_password() {
    for (lie, fault) in [
        (Lie::Signature, "does not know the password that it asks for: its SCRAM-SHA-256 signature is wrong"),
        (Lie::Nonce, "did not extend our SCRAM-SHA-256 nonce: this may be a replay"),
        (
            Lie::Iterations,
            "asks for 1 iterations of SCRAM-SHA-256, and we do 4096 to 10000000: fewer would give the password away, \
             more would be a waste of our time",
        ),
        (Lie::NoFinal, "let us in without the proof that it knows the password, which SCRAM-SHA-256 demands of it"),
        (Lie::Early, "let us in without the proof that it knows the password, which SCRAM-SHA-256 demands of it"),
        (Lie::Refusal, "said \"535 5.7.8 wrong password (invalid-proof)\" after AUTH"),
    ] {
        let ended = in_clear(Auth::Auto, "SCRAM-SHA-256 PLAIN", "pencil", move |stage| {
            serve_scram(stage, "SCRAM-SHA-256", b"n,,", lie);
            // And then nothing weaker is tried.
            let rest = stage.hear();
            assert!(["QUIT", ""].contains(&rest.as_str()), "{rest}");
        });
        assert_eq!(ended.fault(), fault);
    }
}

#[test]
fn a_wrong_password_is_told_in_the_servers_words() {
    let ended =
        in_clear(Auth::Auto, "SCRAM-SHA-1", "crayon", |stage| serve_scram(stage, "SCRAM-SHA-1", b"n,,", Lie::None));
    assert_eq!(ended.fault(), "said \"535 5.7.8 wrong password (invalid-proof)\" after AUTH");
}

#[test]
fn auto_takes_the_strongest_that_can_be_had() {
    let bindings = [Binding { name: "tls-exporter", data: Vec::new() }];
    let all = ["CRAM-MD5", "LOGIN", "PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"];
    let strongest = [
        Mechanism::CramMd5,
        Mechanism::Login,
        Mechanism::Plain,
        Mechanism::ScramSha1,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1Plus,
        Mechanism::ScramSha256Plus,
    ];
    for (i, expected) in strongest.into_iter().enumerate() {
        assert_eq!(Mechanism::choose(Auth::Auto, &all[..=i], &bindings, ""), Ok(expected));
    }
    assert_eq!(Mechanism::choose(Auth::Auto, &all, &[], ""), Ok(Mechanism::ScramSha256));
}

#[test]
fn a_token_goes_by_a_mechanism_that_is_for_tokens() {
    for (offered, expected) in [
        (&["PLAIN", "XOAUTH2", "OAUTHBEARER"][..], Some(Mechanism::OAuthBearer)),
        (&["SCRAM-SHA-256", "PLAIN", "LOGIN", "XOAUTH2"], Some(Mechanism::XOAuth2)),
        (&["SCRAM-SHA-256", "PLAIN", "LOGIN"], None),
    ] {
        assert_eq!(Mechanism::choose(Auth::Bearer, offered, &[], "").ok(), expected);
    }
}

#[test]
fn what_cannot_be_had_is_told() {
    for (wanted, offered, told) in [
        (Auth::Auto, "", "does not offer AUTH, which the settings demand"),
        (Auth::Plain, "LOGIN XOAUTH2", "offers AUTH LOGIN XOAUTH2, but not PLAIN"),
        (
            Auth::Auto,
            "GSSAPI XOAUTH2",
            "offers AUTH GSSAPI XOAUTH2, but not SCRAM-SHA-256-PLUS or SCRAM-SHA-1-PLUS or SCRAM-SHA-256 or \
             SCRAM-SHA-1 or PLAIN or LOGIN or CRAM-MD5; XOAUTH2 must be asked for by the settings",
        ),
        (
            Auth::ScramSha256Plus,
            "SCRAM-SHA-256-PLUS",
            "has no TLS session with us that SCRAM-SHA-256-PLUS could be bound to",
        ),
    ] {
        let words: Vec<&str> = offered.split_ascii_whitespace().collect();
        assert_eq!(Mechanism::choose(wanted, &words, &[], offered), Err(told.to_owned()));
    }
}

#[test]
fn a_refused_mechanism_is_the_end_of_it_whatever_the_code() {
    for code in ["504 5.5.4 unknown", "534 5.7.9 too weak", "535 5.7.8 no", "454 4.7.0 later", "432 4.7.12 transition"]
    {
        let ended = in_clear(Auth::Auto, "SCRAM-SHA-256 PLAIN LOGIN", "pencil", move |stage| {
            assert!(stage.hear().starts_with("AUTH SCRAM-SHA-256 "));
            stage.say(code);
            assert_eq!(stage.hear(), "QUIT");
        });
        assert_eq!(ended.fault(), format!("said \"{code}\" after AUTH"));
    }
}

#[test]
fn a_success_of_any_other_code_is_none() {
    for code in ["250 ok", "200 ok", "354 go"] {
        let ended = in_clear(Auth::Plain, "PLAIN", "pencil", move |stage| {
            stage.hear();
            stage.say(code);
        });
        assert_eq!(ended.fault(), format!("said \"{code}\" out of turn after AUTH"));
    }
}

#[test]
fn plain_takes_one_flight_and_its_echo_is_not_shown() {
    let ended = in_clear(Auth::Auto, "LOGIN PLAIN", "pencil", |stage| {
        assert_eq!(stage.hear(), format!("AUTH PLAIN {}", base64("\0user\0pencil")));
        stage.say(&format!("535-5.7.8 pencil is wrong\r\n535 5.7.8 {}", base64("\0user\0pencil")));
    });
    assert_eq!(ended.fault(), "said \"535 5.7.8 **** is wrong ****\" after AUTH");
    assert!(ended.notes.contains(&"> AUTH PLAIN ****".to_owned()));
}

#[test]
fn login_answers_whatever_it_is_asked() {
    for prompts in [["VXNlcm5hbWU6", "UGFzc3dvcmQ6"], ["", ""], ["Username:", "Password:"], ["UGFzcwA=", "VXNlcgA="]] {
        let ended = in_clear(Auth::Auto, "LOGIN", "pencil", move |stage| {
            assert_eq!(stage.hear(), "AUTH LOGIN");
            stage.say(&format!("334 {}", prompts[0]));
            assert_eq!(unbase64(&stage.hear()), "user");
            stage.say(&format!("334 {}", prompts[1]));
            assert_eq!(unbase64(&stage.hear()), "pencil");
            stage.say("235 ok");
        });
        assert!(ended.session.is_ok(), "{}", ended.fault());
    }
}

#[test]
fn one_challenge_too_many_is_cancelled() {
    let ended = in_clear(Auth::Auto, "LOGIN", "pencil", |stage| {
        for _ in 0..3 {
            stage.hear();
            stage.say("334 ");
        }
        assert_eq!(stage.hear(), "*");
        stage.say("501 5.7.0 cancelled");
        assert_eq!(stage.hear(), "QUIT");
    });
    assert_eq!(ended.fault(), "asked for more than LOGIN has to say");
}

#[test]
fn cram_md5_is_the_last_resort() {
    let mut user = account(Auth::Auto);
    user.user = Some("tim".to_owned());
    let ended = rehearse(&user, "tanstaaftanstaaf", |stage| {
        stage.greet(&["AUTH CRAM-MD5"]);
        assert_eq!(stage.hear(), "AUTH CRAM-MD5");
        stage.say("334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+");
        assert_eq!(stage.hear(), "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw");
        stage.say("235 ok");
    });
    assert!(ended.session.is_ok(), "{}", ended.fault());
    let ended = in_clear(Auth::Auto, "CRAM-MD5", "pencil", |stage| {
        stage.hear();
        stage.say("334 <not base64>");
        assert_eq!(stage.hear(), "*");
        stage.say("501 cancelled");
    });
    assert_eq!(ended.fault(), "sent a CRAM-MD5 challenge that is not base64");
}

#[test]
fn a_refused_token_is_told_with_what_the_challenge_said() {
    let refusal = base64(r#"{"status":"401","scope":"https://mail.example.org/"}"#);
    for (auth, name, message, acknowledgement) in [
        (Auth::XOAuth2, "XOAUTH2", "user=user\x01auth=Bearer token-1\x01\x01".to_owned(), ""),
        (
            Auth::OAuthBearer,
            "OAUTHBEARER",
            format!("n,a=user,\x01host={NAME}\x01port=587\x01auth=Bearer token-1\x01\x01"),
            "AQ==",
        ),
    ] {
        let refusal = refusal.clone();
        let ended = in_clear(auth, "PLAIN XOAUTH2 OAUTHBEARER", "token-1", move |stage| {
            assert_eq!(stage.hear(), format!("AUTH {name} {}", base64(&message)));
            stage.say(&format!("334 {refusal}"));
            assert_eq!(stage.hear(), acknowledgement);
            stage.say("535 5.7.8 bad credentials for token-1");
            assert_eq!(stage.hear(), "QUIT");
        });
        let told =
            "said \"535 5.7.8 bad credentials for **** (scope=https://mail.example.org/ status=401)\" after AUTH";
        assert_eq!(ended.fault(), told);
    }
}

#[test]
fn a_token_too_long_for_a_command_line_goes_after_the_challenge() {
    let token = "t".repeat(2000);
    let sent = format!("user=user\x01auth=Bearer {token}\x01\x01");
    let ended = in_clear(Auth::XOAuth2, "XOAUTH2", &token, move |stage| {
        assert_eq!(stage.hear(), "AUTH XOAUTH2");
        stage.say("334 ");
        assert_eq!(unbase64(&stage.hear()), sent);
        stage.say("235 ok");
    });
    assert!(ended.session.is_ok(), "{}", ended.fault());
    assert!(!ended.notes.concat().contains("dXNlcj"));
}

#[test]
fn external_needs_no_password_and_may_leave_the_name_to_the_certificate() {
    for (user, response) in [("", "="), ("user", "dXNlcg==")] {
        let mut external = account(Auth::External);
        external.user = Some(user.to_owned());
        let ended = rehearse(&external, "", move |stage| {
            stage.greet(&["AUTH EXTERNAL"]);
            assert_eq!(stage.hear(), format!("AUTH EXTERNAL {response}"));
            stage.say("235 ok");
        });
        assert!(ended.session.is_ok(), "{}", ended.fault());
    }
}

/// A session inside TLS of that version with a server that plays `script` after its EHLO.
fn inside_tls(
    auth: Auth,
    version: &'static rustls::SupportedProtocolVersion,
    offered: [&'static str; 2],
    script: impl FnOnce(&mut Stage, &[u8]) + Send + 'static,
) -> Ended {
    let certified = Authority::new().server();
    let mut account = account(auth);
    account.tls = Tls::StartTls;
    account.pins = vec![certified.pin()];
    let config = certified.config(&[version]);
    rehearse(&account, "pencil", move |stage| {
        stage.greet(&["STARTTLS", offered[0]]);
        assert_eq!(stage.hear(), "STARTTLS");
        stage.say("220 go");
        stage.start_tls(&config);
        stage.ehlo(&[offered[1]]);
        script(stage, &certified.der);
    })
}

fn exporter(stage: &Stage) -> Vec<u8> {
    let data = stage.tls().export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b"")).unwrap();
    [b"p=tls-exporter,,".to_vec(), data].concat()
}

/// rcgen signs with P-256 and SHA-256.
fn end_point(der: &[u8]) -> Vec<u8> {
    [b"p=tls-server-end-point,,", digest::digest(&digest::SHA256, der).as_ref()].concat()
}

#[test]
fn tls_1_3_is_bound_by_its_exporter() {
    for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"] {
        let offered =
            if mechanism.contains("256") { "AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256" } else { "AUTH SCRAM-SHA-1-PLUS" };
        let ended = inside_tls(Auth::Auto, &TLS13, ["AUTH PLAIN", offered], move |stage, _| {
            let header = exporter(stage);
            serve_scram(stage, mechanism, &header, Lie::None);
        });
        assert!(ended.session.is_ok(), "{}", ended.fault());
    }
}

#[test]
fn tls_1_2_is_bound_by_the_servers_certificate() {
    let ended = inside_tls(Auth::Auto, &TLS12, ["X", "AUTH SCRAM-SHA-256-PLUS"], |stage, der| {
        serve_scram(stage, "SCRAM-SHA-256-PLUS", &end_point(der), Lie::None);
    });
    assert!(ended.session.is_ok(), "{}", ended.fault());
}

#[test]
fn a_server_that_knows_another_binding_gets_that_one_and_never_none() {
    let ended = inside_tls(Auth::Auto, &TLS13, ["X", "AUTH SCRAM-SHA-256-PLUS PLAIN"], |stage, der| {
        let first = stage.hear();
        assert!(unbase64(first.strip_prefix("AUTH SCRAM-SHA-256-PLUS ").unwrap()).starts_with("p=tls-exporter,,"));
        stage.say(&format!("334 {}", base64("e=unsupported-channel-binding-type")));
        assert_eq!(stage.hear(), "");
        stage.say("535 5.7.8 no");
        serve_scram(stage, "SCRAM-SHA-256-PLUS", &end_point(der), Lie::None);
    });
    assert!(ended.session.is_ok(), "{}", ended.fault());
    let ended = inside_tls(Auth::Auto, &TLS13, ["X", "AUTH SCRAM-SHA-256-PLUS PLAIN"], |stage, _| {
        for _ in 0..2 {
            assert!(stage.hear().starts_with("AUTH SCRAM-SHA-256-PLUS "));
            stage.say(&format!("334 {}", base64("e=unsupported-channel-binding-type")));
            assert_eq!(stage.hear(), "");
            stage.say("535 5.7.8 no");
        }
        assert_eq!(stage.hear(), "QUIT");
    });
    assert_eq!(ended.fault(), "said \"535 5.7.8 no (unsupported-channel-binding-type)\" after AUTH");
}

#[test]
fn a_stripped_plus_is_told_to_the_server() {
    let ended = inside_tls(Auth::Auto, &TLS13, ["X", "AUTH SCRAM-SHA-256"], |stage, _| {
        serve_scram(stage, "SCRAM-SHA-256", b"y,,", Lie::None);
    });
    assert!(ended.session.is_ok(), "{}", ended.fault());
    // Told to go without, we do not accuse the server of not offering it.
    let ended = inside_tls(Auth::ScramSha256, &TLS13, ["X", "AUTH SCRAM-SHA-256 SCRAM-SHA-256-PLUS"], |stage, _| {
        serve_scram(stage, "SCRAM-SHA-256", b"n,,", Lie::None);
    });
    assert!(ended.session.is_ok(), "{}", ended.fault());
}

#[test]
fn only_the_mechanisms_offered_inside_tls_count() {
    let ended = inside_tls(Auth::Auto, &TLS13, ["AUTH SCRAM-SHA-256", "AUTH PLAIN"], |stage, _| {
        assert!(stage.hear().starts_with("AUTH PLAIN "));
        stage.say("235 ok");
    });
    assert!(ended.session.is_ok(), "{}", ended.fault());
    let ended = inside_tls(Auth::Auto, &TLS13, ["AUTH PLAIN", "X"], |stage, _| assert_eq!(stage.hear(), "QUIT"));
    assert_eq!(ended.fault(), "does not offer AUTH, which the settings demand");
    assert_eq!(ended.session.err().map(|fault| fault.stage), Some(Place::Auth));
}

#[test]
fn what_is_unfit_to_be_sent_is_our_own_fault() {
    for (auth, user, secret) in
        [(Auth::Plain, "us\0er", "pencil"), (Auth::Plain, "user", "pen\0cil"), (Auth::XOAuth2, "user", "two words")]
    {
        let credentials = Credentials { user, secret: Secret::new(secret.as_bytes().to_vec()), relay: None };
        let mechanism = Mechanism::choose(auth, &["PLAIN", "XOAUTH2"], &[], "").unwrap();
        assert!(Exchange::begin(mechanism, &credentials, Channel::Unbindable).is_err(), "{user:?} {secret:?}");
    }
}

#[test]
fn an_exchange_cannot_be_printed() {
    let credentials = Credentials { user: "user", secret: Secret::new(b"pencil".to_vec()), relay: None };
    let exchange = Exchange::begin(Mechanism::Plain, &credentials, Channel::Unbindable).unwrap();
    assert_eq!(format!("{exchange:?}"), "Exchange(\"PLAIN\")");
}
