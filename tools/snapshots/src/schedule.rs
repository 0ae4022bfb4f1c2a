use std::time::Duration;

use chrono::{DateTime, Utc};
use snapshot_service::{Deadline, Error, Month, Result, SnapshotService, Trigger, next_scheduled_run};
use tokio_util::sync::CancellationToken;

/// Longest sleep at a time: the wall clock is looked at again after it, because it may be set or the machine may sleep,
/// and no timer is ever longer than it can be.
const MAX_SLEEP: Duration = Duration::from_mins(1);

/// How soon a run that did not end is tried again: it may be paused, or the database may be down.
const RETRY_INTERVAL: Duration = Duration::from_mins(1);

/// Runs maintenance on the 1st of each month at 02:00 UTC until `stop`; a month that was missed, at once.
pub(crate) async fn run(service: SnapshotService, stop: CancellationToken) {
    let mut due = loop {
        match find_missed_period(&service).await {
            Ok(period) => break period,
            Err(error) => tracing::error!(code = error.code(), ?error, "the last run is not known"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    };
    loop {
        while let Some(period) = due {
            let deadline = Deadline::never().or_when(stop.clone());
            let request = Trigger::Schedule { period }.request();
            match service.run_maintenance(request, Utc::now(), &deadline).await {
                // Not another one, which went first and was cancelled.
                Ok(run) if run.finished_at.is_some() && run.period == Some(period) => break,
                Ok(_) => {}
                Err(error @ (Error::UnderWay { .. } | Error::Paused { .. })) => {
                    tracing::info!(%error, "snapshot maintenance: tried again in a minute");
                }
                Err(error) => tracing::error!(code = error.code(), ?error, "snapshot maintenance failed"),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
        }
        let next = next_scheduled_run(Utc::now());
        tracing::info!(%next, "snapshot maintenance: scheduled");
        tokio::select! {
            () = sleep_until(next, Utc::now) => due = Some(Month::containing(next)),
            () = stop.cancelled() => return,
        }
    }
}

/// The month of a scheduled run that was begun and not ended; or this month, if the schedule ran in an earlier one and has
/// not yet in this one though its time has come.
async fn find_missed_period(service: &SnapshotService) -> Result<Option<Month>> {
    let open = service.find_open_maintenance_run().await?;
    if let Some(period) = open.and_then(|run| run.period) {
        return Ok(Some(period));
    }
    let this_month = Month::containing(Utc::now());
    let not_yet = Month::containing(next_scheduled_run(Utc::now())) == this_month;
    let last = service.find_last_scheduled_period().await?;
    Ok(last.filter(|last| *last < this_month && !not_yet).map(|_| this_month))
}

/// Sleeps until the wall clock `now` says that it is `time`.
async fn sleep_until(time: DateTime<Utc>, now: impl Fn() -> DateTime<Utc>) {
    while let Ok(left) = (time - now()).to_std()
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(MAX_SLEEP)).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_longer_than_any_timer_ends_on_time_and_not_at_once() {
        let (start, started): (DateTime<Utc>, _) = ("2026-01-01T02:00:00Z".parse().expect("a time"), Instant::now());
        let now = || start + started.elapsed();
        let next = next_scheduled_run(start);
        sleep_until(next, now).await;
        let days = started.elapsed().as_secs_f64() / 86_400.0;
        assert!((31.0..31.01).contains(&days), "{days} days");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_forward_is_noticed_within_a_minute() {
        let (start, started): (DateTime<Utc>, _) = ("2026-01-01T02:00:00Z".parse().expect("a time"), Instant::now());
        let hour = Duration::from_hours(1);
        let now = || start + started.elapsed() + if started.elapsed() > hour { hour * 24 * 40 } else { Duration::ZERO };
        sleep_until(next_scheduled_run(start), now).await;
        assert!(started.elapsed() < hour + 2 * MAX_SLEEP);
    }
}
