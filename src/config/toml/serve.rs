//! The rows of `[serve]`.

use super::super::{Serve, notation};
use super::row::{Row, put};
use super::value::printable;

/// Keys of `[serve]`.
pub(super) const SERVE: &[Row<Serve>] = &[
    Row {
        key: "socket",
        allowed: "a path that begins with / or ~/",
        read: |serve, value| put(&mut serve.socket, value.path()?),
    },
    Row {
        key: "listen",
        allowed: "\"127.0.0.1:25\", \"[::1]:25\" or another address and port of the loopback interface, or a list of \
                  these",
        read: |serve, value| {
            let loopback = |text: &str| notation::loopback(text);
            put(&mut serve.listen, value.list(|one| loopback(one.text()?).map_err(|text| one.wrong(text)))?)
        },
    },
    Row {
        key: "trusted_users",
        allowed: "a login name or a uid, or a list of these",
        read: |serve, value| put(&mut serve.trusted_users, value.list(|one| one.checked(printable))?),
    },
    Row {
        key: "allow_users",
        allowed: "a login name or a uid, or a list of these",
        read: |serve, value| put(&mut serve.allow_users, Some(value.list(|one| one.checked(printable))?)),
    },
    Row {
        key: "max_connections",
        allowed: "a number from 1 to 1000",
        read: |serve, value| put(&mut serve.max_connections, value.number(1, 1000)?.into()),
    },
    Row {
        key: "max_connections_per_user",
        allowed: "a number from 1 to 1000",
        read: |serve, value| put(&mut serve.max_connections_per_user, value.number(1, 1000)?.into()),
    },
    Row {
        key: "letters_per_hour",
        allowed: "a number from 1 to 65535",
        read: |serve, value| put(&mut serve.letters_per_hour, value.number(1, u16::MAX)?.into()),
    },
    Row {
        key: "max_recipients",
        allowed: "a number from 1 to 10000",
        read: |serve, value| put(&mut serve.max_recipients, value.number(1, 10_000)?.into()),
    },
    Row {
        key: "max_size",
        allowed: "a number and its unit, as in \"50M\" or \"512K\"",
        read: |serve, value| put(&mut serve.max_size, value.size()?),
    },
    Row {
        key: "disk_reserve",
        allowed: "a number and its unit, as in \"100M\" or \"1G\"",
        read: |serve, value| put(&mut serve.disk_reserve, value.size()?),
    },
    Row {
        key: "command_timeout",
        allowed: "a number and its unit, as in \"5m\"; at least 1s",
        read: |serve, value| put(&mut serve.command_timeout, value.timeout()?),
    },
    Row {
        key: "letter_timeout",
        allowed: "a number and its unit, as in \"10m\"; at least 1s",
        read: |serve, value| put(&mut serve.letter_timeout, value.timeout()?),
    },
];
