//! The rows of `[queue]`.

use super::super::Queue;
use super::row::{Row, put};
use toml::de::DeValue;

/// Keys of `[queue]`.
pub(super) const QUEUE: &[Row<Queue>] = &[
    Row {
        key: "dir",
        allowed: "a path that begins with / or ~/",
        read: |queue, value| put(&mut queue.dir, Some(value.path()?)),
    },
    Row {
        key: "lifetime",
        allowed: "a number and its unit, as in \"5d\" or \"12h\"",
        read: |queue, value| put(&mut queue.lifetime, value.duration()?),
    },
    Row { key: "runner", allowed: "\"on\" or \"off\"", read: |queue, value| put(&mut queue.runner, value.switch()?) },
    Row {
        key: "deadline",
        allowed: "a number and its unit, as in \"4s\"",
        read: |queue, value| put(&mut queue.deadline, value.duration()?),
    },
    Row {
        key: "delay_notice",
        allowed: "\"off\", or a number and its unit, as in \"4h\"",
        read: |queue, value| {
            let off = matches!(value.value(), DeValue::Boolean(false)) || value.text().is_ok_and(|text| text == "off");
            put(&mut queue.delay_notice, if off { None } else { Some(value.duration()?) })
        },
    },
    Row {
        key: "keep_failed",
        allowed: "a number and its unit, as in \"5d\"",
        read: |queue, value| put(&mut queue.keep_failed, value.duration()?),
    },
    Row {
        key: "connections",
        allowed: "a number from 1 to 100",
        read: |queue, value| put(&mut queue.connections, value.number(1, 100)?.into()),
    },
];
