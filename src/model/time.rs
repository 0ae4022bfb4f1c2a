use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

/// Writes a time as RFC 3339 in UTC with milliseconds and `Z` (domain rule 9).
pub(crate) fn rfc3339_millis<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
