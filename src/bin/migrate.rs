//! Lambda function: brings the service's tables up to date, at each deployment and when the host's columns changed.

mod lambda;

use snapshot_service::invocation;

lambda::main!("migrate", |_config| 1, |_config, pool| pool, |pool, event, _| invocation::migrate(pool, event));
