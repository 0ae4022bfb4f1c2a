use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_postgres::Row;

use crate::error::{Error, Result, Source};

/// The value that the column `name` has as a text: a month, or one of several words; an `Option` where it may be NULL.
pub(super) fn decode<T: DeserializeOwned>(row: &Row, name: &'static str) -> Result<T> {
    decode_value(name, row.try_get::<_, Option<&str>>(name)?.into())
}

/// The same of a column of type json or jsonb.
pub(super) fn decode_json<T: DeserializeOwned>(row: &Row, name: &'static str) -> Result<T> {
    decode_value(name, row.try_get::<_, Option<Value>>(name)?.into())
}

/// What `value`, which the database has, says.
pub(super) fn decode_value<T: DeserializeOwned>(what: &'static str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| unreadable(what, error))
}

pub(super) fn unreadable(what: &'static str, source: impl Into<Source>) -> Error {
    Error::Decode { what, source: source.into() }
}

/// A count as PostgreSQL has it.
pub(super) fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
