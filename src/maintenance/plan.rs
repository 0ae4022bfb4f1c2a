use chrono::{DateTime, Duration, Months, Utc};

use crate::model::Month;

/// What a run is about, fixed when it starts (domain rule 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The run's start.
    pub(crate) now: DateTime<Utc>,
    /// The month of the snapshots.
    pub(crate) snapshot_month: Month,
    /// Logs created before this instant are archived.
    pub(crate) cutoff: DateTime<Utc>,
}

impl Plan {
    /// The plan of a run that starts at `now`: the cutoff is `retention_months` calendar months earlier, the day clamped
    /// to that month's length.
    pub(crate) fn starting_at(now: DateTime<Utc>, retention_months: u32) -> Self {
        let cutoff = now.checked_sub_months(Months::new(retention_months)).unwrap_or(DateTime::<Utc>::MIN_UTC);
        Self { now, snapshot_month: Month::containing(now), cutoff }
    }
}

/// When the monthly schedule fires next: the first instant after `now` that is the 1st of a month, 02:00 UTC.
///
/// ```
/// let now = "2026-01-01T02:00:00Z".parse()?;
/// assert_eq!(snapshot_service::next_scheduled_run(now).to_rfc3339(), "2026-02-01T02:00:00+00:00");
/// # Ok::<(), chrono::ParseError>(())
/// ```
pub fn next_scheduled_run(now: DateTime<Utc>) -> DateTime<Utc> {
    let at_two = |month: Month| month.start().and_utc() + Duration::hours(2);
    let this_month = Month::containing(now);
    if at_two(this_month) > now { at_two(this_month) } else { at_two(Month::containing(this_month.end().and_utc())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().expect(text)
    }

    #[test]
    fn the_cutoff_is_three_calendar_months_back_with_the_day_clamped() {
        for (now, cutoff) in [
            ("2026-05-31T02:00:00Z", "2026-02-28T02:00:00Z"),
            ("2024-05-31T02:00:00Z", "2024-02-29T02:00:00Z"),
            ("2026-01-01T02:00:00.123456Z", "2025-10-01T02:00:00.123456Z"),
            ("2026-12-31T23:59:59.999Z", "2026-09-30T23:59:59.999Z"),
            ("2026-03-01T00:00:00Z", "2025-12-01T00:00:00Z"),
        ] {
            assert_eq!(Plan::starting_at(time(now), 3).cutoff, time(cutoff), "{now}");
        }
    }

    #[test]
    fn the_snapshot_month_is_that_of_the_runs_start_in_utc() {
        for (now, month) in [("2026-01-31T23:30:00-02:00", "2026-02"), ("2026-02-01T00:30:00+02:00", "2026-01")] {
            assert_eq!(Plan::starting_at(time(now), 3).snapshot_month.to_string(), month);
        }
    }

    #[test]
    fn the_schedule_fires_on_the_first_at_two_utc() {
        for (now, next) in [
            ("2026-01-01T01:59:59.999Z", "2026-01-01T02:00:00Z"),
            ("2026-01-01T02:00:00Z", "2026-02-01T02:00:00Z"),
            ("2026-12-31T23:00:00Z", "2027-01-01T02:00:00Z"),
            ("2024-02-29T12:00:00Z", "2024-03-01T02:00:00Z"),
        ] {
            assert_eq!(next_scheduled_run(time(now)), time(next), "{now}");
        }
    }
}
