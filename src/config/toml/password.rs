//! `password = { … }`, and the `oauth` in it: where a secret comes from.

use super::super::oauth::{self, Consent, OAuth, PROVIDERS, Provider, TokenUrl};
use super::super::{Keepsake, PasswordSource, notation};
use super::row::{self, Row, in_order, put};
use super::value::{Value, Wrong, no_nul, printable};
use std::path::PathBuf;
use toml::de::DeValue;
use zeroize::Zeroizing;

/// Keys of `password = { … }`: exactly one of them.
pub(super) const PASSWORD: &[Row<Option<PasswordSource>>] = &[
    Row {
        key: "command",
        allowed: "a command line, or a list of a program and its arguments",
        read: |source, value| {
            let words = value.list(|one| one.checked(no_nul))?;
            if words.iter().all(String::is_empty) {
                return Err(value.wrong("is empty"));
            }
            put(source, Some(PasswordSource::Command(words)))
        },
    },
    Row {
        key: "file",
        allowed: "a path that begins with / or ~/",
        read: |source, value| put(source, Some(PasswordSource::File(value.path()?))),
    },
    Row {
        key: "credential",
        allowed: "the name of a systemd credential",
        read: |source, value| {
            let name = value.checked(printable)?;
            if name.contains('/') || name.starts_with('.') {
                return Err(value.wrong("is a path, and a credential is a file's name"));
            }
            put(source, Some(PasswordSource::Credential(name)))
        },
    },
    Row {
        key: "keyring",
        allowed: "true",
        read: |source, value| match value.value() {
            DeValue::Boolean(true) => put(source, Some(PasswordSource::Keyring(Keepsake::Password))),
            _ => Err(value.wrong("can only be true")),
        },
    },
    Row {
        key: "netrc",
        allowed: "true, or a path that begins with / or ~/",
        read: |source, value| {
            let path = if let DeValue::Boolean(true) = value.value() { None } else { Some(value.path()?) };
            put(source, Some(PasswordSource::Netrc(path)))
        },
    },
    Row {
        key: "oauth",
        allowed: "a table with provider or token_url, client_id and refresh_token",
        read: |source, value| put(source, Some(PasswordSource::OAuth(Box::new(tokens(value)?)))),
    },
];

/// Those of [`PASSWORD`] that a client's secret can come from.
pub(super) const SECRET: &[Row<Option<PasswordSource>>] = PASSWORD.split_at(3).0;

/// Those that a refresh token can come from.
pub(super) const TOKEN: &[Row<Option<PasswordSource>>] = PASSWORD.split_at(4).0;

/// Keys of `password = { oauth = { … } }`.
pub(super) const OAUTH: &[Row<Tokens>] = &[
    Row {
        key: "provider",
        allowed: "\"google\" or \"microsoft\"; for others write token_url",
        read: |tokens, value| {
            let words = PROVIDERS.map(|provider| (provider.name, provider));
            put(&mut tokens.provider, Some(value.word(&words)?))
        },
    },
    Row {
        key: "tenant",
        allowed: "a domain or the number of a directory",
        read: |tokens, value| put(&mut tokens.tenant, Some(value.checked(oauth::tenant)?)),
    },
    Row {
        key: "token_url",
        allowed: "the https URL of a token endpoint",
        read: |tokens, value| put(&mut tokens.token_url, Some(url(value)?)),
    },
    Row {
        key: "auth_url",
        allowed: "the https URL where a browser is sent for the user's consent",
        read: |tokens, value| put(&mut tokens.auth_url, Some(url(value)?)),
    },
    Row {
        key: "device_url",
        allowed: "the https URL where a device is authorized",
        read: |tokens, value| put(&mut tokens.device_url, Some(url(value)?)),
    },
    Row {
        key: "scope",
        allowed: "a string",
        read: |tokens, value| put(&mut tokens.scope, Some(value.checked(printable)?)),
    },
    Row {
        key: "client_id",
        allowed: "a string",
        read: |tokens, value| put(&mut tokens.client_id, Some(value.checked(printable)?)),
    },
    Row {
        key: "client_secret",
        allowed: "\"literal\", { command = … }, { file = … } or { credential = … }",
        read: |tokens, value| put(&mut tokens.client_secret, Some(source(value, SECRET)?)),
    },
    Row {
        key: "refresh_token",
        allowed: "\"literal\", { command = … }, { file = … }, { credential = … } or { keyring = true }",
        read: |tokens, value| {
            let token = match source(value, TOKEN)? {
                PasswordSource::Keyring(_) => PasswordSource::Keyring(Keepsake::RefreshToken),
                other => other,
            };
            put(&mut tokens.refresh_token, Some(token))
        },
    },
    Row {
        key: "ca_file",
        allowed: "a path that begins with / or ~/",
        read: |tokens, value| put(&mut tokens.ca_file, Some(value.path()?)),
    },
    Row { key: "pin", allowed: PIN, read: |tokens, value| put(&mut tokens.pins, pins(value)?) },
];

/// A literal, or a table with one of these rows.
pub(super) fn source(value: Value<'_>, rows: &[Row<Option<PasswordSource>>]) -> Result<PasswordSource, Wrong> {
    let table = match value.value() {
        DeValue::String(text) if text.is_empty() => return Err(value.wrong("is empty")),
        DeValue::String(text) => {
            no_nul(text).map_err(|text| value.wrong(text))?;
            return Ok(PasswordSource::Literal(Zeroizing::new(text.to_string())));
        }
        DeValue::Table(table) => table,
        _ => return Err(value.wrong_type()),
    };
    let [(key, inner)] = in_order(table)[..] else { return Err(value.wrong("exactly one source can be named")) };
    let mut source = None;
    row::read("password", rows, &[], key, Value { spanned: inner, ..value }, &mut source)?;
    source.ok_or_else(|| value.wrong("names no source"))
}

/// What `oauth` says, on its way.
#[derive(Default)]
pub(super) struct Tokens {
    provider: Option<Provider>,
    tenant: Option<String>,
    token_url: Option<TokenUrl>,
    auth_url: Option<TokenUrl>,
    device_url: Option<TokenUrl>,
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<PasswordSource>,
    refresh_token: Option<PasswordSource>,
    ca_file: Option<PathBuf>,
    pins: Vec<[u8; 32]>,
}

fn tokens(value: Value<'_>) -> Result<OAuth, Wrong> {
    let DeValue::Table(table) = value.value() else { return Err(value.wrong_type()) };
    let mut read = Tokens::default();
    for (key, inner) in in_order(table) {
        row::read("oauth", OAUTH, &[], key, Value { spanned: inner, ..value }, &mut read)?;
    }
    let (token_url, usual) = match (read.provider, read.token_url) {
        (Some(provider), None) => provider
            .endpoint(read.tenant.as_deref())
            .ok_or_else(|| value.wrong(format!("{} has no tenants", provider.name)))?,
        (None, Some(_)) if read.tenant.is_some() => return Err(value.wrong("a token_url has no tenant")),
        (None, Some(url)) => (url, None),
        _ => return Err(value.wrong("exactly one of provider and token_url is needed")),
    };
    let known = read.provider.map(|provider| provider.consent(read.tenant.as_deref())).unwrap_or_default();
    let consent = Consent {
        auth_url: read.auth_url.or(known.auth_url),
        device_url: read.device_url.or(known.device_url),
        scope: read.scope.clone().or(known.scope),
        by_name: known.by_name,
    };
    Ok(OAuth {
        token_url,
        scope: read.scope.or(usual),
        client_id: read.client_id.ok_or_else(|| value.wrong("client_id is missing"))?,
        client_secret: read.client_secret,
        refresh_token: read.refresh_token.ok_or_else(|| value.wrong("refresh_token is missing"))?,
        ca_file: read.ca_file,
        pins: read.pins,
        consent,
    })
}

fn url(value: Value<'_>) -> Result<TokenUrl, Wrong> {
    TokenUrl::parse(value.text()?).map_err(|text| value.wrong(text))
}

/// What stands at `pin`.
pub(super) const PIN: &str = "\"sha256:\" and a fingerprint in hexadecimal or base64, or a list of these";

pub(super) fn pins(value: Value<'_>) -> Result<Vec<[u8; 32]>, Wrong> {
    value.list(|one| notation::pin(one.text()?).map_err(|text| one.wrong(text)))
}
