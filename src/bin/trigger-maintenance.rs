//! Lambda function: answers `Endpoint::TriggerMaintenance` for API Gateway.

mod lambda;

use snapshot_service::{SnapshotService, metrics, state_machine};

lambda::main!(
    TriggerMaintenance,
    |config| config.settings.connections(),
    |config, pool| SnapshotService::new(
        pool,
        metrics::reporting_slices(config.settings.clone(), &config.metrics_namespace)
    ),
    |config| state_machine::continuation(config.state_machine.clone(), &config.aws)
);
