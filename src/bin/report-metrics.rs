//! Lambda function: the daily metrics of how far maintenance is behind, started by a schedule.

mod lambda;

use chrono::Utc;
use snapshot_service::{SnapshotService, invocation, metrics};

lambda::main!(
    "report-metrics",
    |_config| 1,
    |config, pool| {
        metrics::init(&config.metrics_namespace);
        SnapshotService::new(pool, config.settings)
    },
    |service, event, _| invocation::report_metrics(service, event, Utc::now())
);
