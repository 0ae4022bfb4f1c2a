use std::time::Duration;

use chrono::{DateTime, Utc};
use snapshot_service::{Deadline, SnapshotService, next_scheduled_run};
use tokio_util::sync::CancellationToken;

/// Longest sleep at a time: the wall clock is looked at again after it, because it may be set or the machine may sleep,
/// and no timer is ever longer than it can be.
const MAX_SLEEP: Duration = Duration::from_mins(1);

/// Runs maintenance on the 1st of each month at 02:00 UTC until `stop`.
pub(crate) async fn run(service: SnapshotService, stop: CancellationToken) {
    loop {
        let next = next_scheduled_run(Utc::now());
        tracing::info!(%next, "snapshot maintenance: scheduled");
        tokio::select! {
            () = sleep_until(next, Utc::now) => {}
            () = stop.cancelled() => return,
        }
        let deadline = Deadline::never().or_when(stop.clone());
        if let Err(error) = service.run_maintenance(Utc::now(), &deadline).await {
            tracing::error!(code = error.code(), ?error, "snapshot maintenance failed");
        }
    }
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
