use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

/// Writes a time as RFC 3339 in UTC with milliseconds and `Z` (domain rule 9).
pub(crate) fn rfc3339_millis<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The same, or null.
#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
pub(crate) fn optional_rfc3339_millis<S: Serializer>(
    time: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339_millis(time, serializer),
        None => serializer.serialize_none(),
    }
}
