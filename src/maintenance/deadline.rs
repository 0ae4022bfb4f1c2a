use std::future::pending;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::StopReason;

/// What a Lambda keeps of its time to end the batch under way, which is limited by the statement timeout, and to answer.
const INVOCATION_MARGIN: Duration = Duration::from_secs(10);

/// When work must stop. It stops between two batches: each call does at least one, so that repeated calls always end.
///
/// It looks at the monotonic clock only, as all that is below `bin`.
#[derive(Debug, Clone)]
pub struct Deadline {
    at: Option<Instant>,
    stop: CancellationToken,
}

impl Deadline {
    /// No end; work stops when it is done.
    pub fn never() -> Self {
        Self { at: None, stop: CancellationToken::new() }
    }

    /// An end after `time`, counted from now.
    pub fn after(time: Duration) -> Self {
        Self { at: Some(Instant::now() + time), ..Self::never() }
    }

    /// The end of a Lambda invocation that is stopped at `deadline_ms`, milliseconds since the epoch, less a margin.
    pub fn before_invocation_ends(deadline_ms: u64, now: DateTime<Utc>) -> Self {
        let now_ms = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        Self::after(Duration::from_millis(deadline_ms.saturating_sub(now_ms)).saturating_sub(INVOCATION_MARGIN))
    }

    /// This deadline, or `time` from now if that is sooner.
    #[must_use]
    pub fn or_after(self, time: Duration) -> Self {
        let other = Instant::now() + time;
        Self { at: Some(self.at.map_or(other, |at| at.min(other))), ..self }
    }

    /// This deadline, or the moment `stop` is cancelled.
    #[must_use]
    pub fn or_when(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// Why it is time to stop; `None` while it is not.
    #[must_use]
    pub fn has_come(&self) -> Option<StopReason> {
        if self.stop.is_cancelled() {
            return Some(StopReason::Signal);
        }
        self.at.is_some_and(|at| Instant::now() >= at).then_some(StopReason::Deadline)
    }

    /// How long it is until then; `None` without an end.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Waits until it is time to stop.
    pub(crate) async fn come(&self) {
        tokio::select! {
            () = async { match self.at { Some(at) => tokio::time::sleep_until(at).await, None => pending().await } } => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Sleeps for `time`, or until it is time to stop.
    pub(crate) async fn sleep(&self, time: Duration) {
        let time = self.remaining().map_or(time, |remaining| remaining.min(time));
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stop.cancelled() => {}
        }
    }
}
