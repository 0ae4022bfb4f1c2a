use chrono::{DateTime, Datelike, NaiveDateTime, SecondsFormat, Utc};
use serde_json::value::{RawValue, to_raw_value};

use super::WireForm;

impl WireForm {
    /// How `value` leaves, which is as PostgreSQL's `row_to_json` writes it: as a snapshot's state has it (domain rule 9).
    /// What does not look like a value of the form is left alone.
    pub(crate) fn write(self, value: &RawValue) -> Box<RawValue> {
        let text = value.get();
        let wire = match self {
            Self::Plain => None,
            // NaN is a string already.
            Self::Number => {
                text.starts_with(|first: char| first == '-' || first.is_ascii_digit()).then(|| text.to_owned())
            }
            Self::Timestamp | Self::Timestamptz => {
                serde_json::from_str::<String>(text).ok().map(|time| write_time(&time))
            }
        };
        wire.and_then(|wire| to_raw_value(&wire).ok()).unwrap_or_else(|| value.to_owned())
    }
}

/// RFC 3339 in UTC with milliseconds; a time that has none (infinite, before Christ, after 9999) as PostgreSQL's text.
fn write_time(time: &str) -> String {
    let utc = NaiveDateTime::parse_from_str(time, "%Y-%m-%dT%H:%M:%S%.f").map(|time| time.and_utc());
    let utc = utc.or_else(|_| DateTime::parse_from_rfc3339(time).map(|time| time.with_timezone(&Utc)));
    match utc {
        Ok(utc) if (1..=9999).contains(&utc.year()) => utc.to_rfc3339_opts(SecondsFormat::Millis, true),
        _ => time.replacen('T', " ", 1).replacen("+00:00", "+00", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_leave_as_a_snapshots_state_has_them() {
        for (form, value, wire) in [
            (WireForm::Plain, r#"{"a" : "\ud800\u0000"}"#, r#"{"a" : "\ud800\u0000"}"#),
            (WireForm::Number, "12345678901234567890.10", r#""12345678901234567890.10""#),
            (WireForm::Number, "-1", r#""-1""#),
            (WireForm::Number, r#""NaN""#, r#""NaN""#),
            (WireForm::Number, "null", "null"),
            (WireForm::Timestamp, r#""2026-01-01T00:00:00.123456""#, r#""2026-01-01T00:00:00.123Z""#),
            (WireForm::Timestamp, r#""0001-01-01T00:00:00""#, r#""0001-01-01T00:00:00.000Z""#),
            (WireForm::Timestamp, r#""infinity""#, r#""infinity""#),
            (WireForm::Timestamp, r#""0044-03-15T00:00:00 BC""#, r#""0044-03-15 00:00:00 BC""#),
            (WireForm::Timestamp, r#""52026-01-01T00:00:00""#, r#""52026-01-01 00:00:00""#),
            (WireForm::Timestamp, "null", "null"),
            (WireForm::Timestamptz, r#""2026-01-01T00:00:00.5+00:00""#, r#""2026-01-01T00:00:00.500Z""#),
            (WireForm::Timestamptz, r#""52026-01-01T00:00:00+00:00""#, r#""52026-01-01 00:00:00+00""#),
            (WireForm::Timestamptz, r#""-infinity""#, r#""-infinity""#),
        ] {
            let raw = RawValue::from_string(value.into()).expect("JSON");
            assert_eq!(form.write(&raw).get(), wire, "{form:?} {value}");
        }
    }
}
