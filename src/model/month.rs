use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};

/// A calendar month in UTC, written `YYYY-MM` (domain rule 1).
///
/// ```
/// use snapshot_service::Month;
///
/// let month: Month = "2026-02".parse()?;
/// assert_eq!(month.to_string(), "2026-02");
/// assert!("2026-13".parse::<Month>().is_err());
/// assert!("2026-1".parse::<Month>().is_err());
/// # Ok::<(), snapshot_service::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    /// The month's first day; the day is always 1.
    first_day: NaiveDate,
}

impl Month {
    /// The month that `instant` lies in.
    pub fn containing(instant: DateTime<Utc>) -> Self {
        Self::from_date(instant.date_naive())
    }

    fn from_date(date: NaiveDate) -> Self {
        // Going back to the first day can only fail below chrono's first year, which starts on a first day.
        let first_day = date.checked_sub_days(Days::new(u64::from(date.day0()))).unwrap_or(date);
        Self { first_day }
    }

    /// The month's first instant, inclusive.
    pub fn start(self) -> NaiveDateTime {
        self.first_day.and_time(NaiveTime::MIN)
    }

    /// The month before.
    #[must_use]
    pub fn previous(self) -> Self {
        let last_day = self.first_day.pred_opt().unwrap_or(self.first_day);
        Self::from_date(last_day)
    }

    /// The next month's first instant, exclusive end of this month.
    pub fn end(self) -> NaiveDateTime {
        let next = self.first_day.checked_add_months(chrono::Months::new(1));
        next.unwrap_or(NaiveDate::MAX).and_time(NaiveTime::MIN)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.first_day.year(), self.first_day.month())
    }
}

impl FromStr for Month {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = |range: std::ops::Range<usize>| {
            let part = text.get(range).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?;
            part.parse::<u16>().ok()
        };
        let first_day = (text.len() == 7 && text.as_bytes()[4] == b'-')
            .then(|| NaiveDate::from_ymd_opt(i32::from(digits(0..4)?), u32::from(digits(5..7)?), 1))
            .flatten();
        first_day
            .map(|first_day| Self { first_day })
            .ok_or_else(|| Error::invalid("month", "must be a calendar month as YYYY-MM, such as 2026-02"))
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_yyyy_mm_is_a_month() {
        for good in ["2026-01", "2026-12", "0001-01", "9999-12"] {
            assert_eq!(good.parse::<Month>().expect(good).to_string(), good);
        }
        for bad in [
            "",
            "2026",
            "2026-1",
            "2026-13",
            "2026-00",
            "2026-001",
            "26-01",
            "2026/01",
            "2026-01-01",
            "+026-01",
            " 2026-01",
            "2026-0١",
            "２０26-01",
            "2026-1\0",
        ] {
            assert!(bad.parse::<Month>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_month_starts_at_its_first_instant_and_ends_at_the_next_ones() {
        let december: Month = "2025-12".parse().expect("a month");
        assert_eq!(december.start().to_string(), "2025-12-01 00:00:00");
        assert_eq!(december.end().to_string(), "2026-01-01 00:00:00");
        assert_eq!(Month::containing("2024-02-29T23:59:59.999Z".parse().expect("a time")).to_string(), "2024-02");
    }
}
