use std::time::Duration;

use chrono::Utc;
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
        while Utc::now() < next {
            let left = (next - Utc::now()).to_std().unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(left.min(MAX_SLEEP)) => {}
                () = stop.cancelled() => return,
            }
        }
        let deadline = Deadline::never().or_when(stop.clone());
        if let Err(error) = service.run_maintenance(Utc::now(), &deadline).await {
            tracing::error!(code = error.code(), ?error, "snapshot maintenance failed");
        }
    }
}
