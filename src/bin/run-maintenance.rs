//! Lambda function: maintenance, step by step for the state machine, or whole by hand.

mod lambda;

use chrono::Utc;
use snapshot_service::{SnapshotService, invocation, metrics};

lambda::main!(
    "run-maintenance",
    |config| config.settings.connections(),
    |config, pool| SnapshotService::new(pool, metrics::reporting_slices(config.settings, &config.metrics_namespace)),
    |service, event, deadline_ms| invocation::run_maintenance(service, event, deadline_ms, Utc::now())
);
