//! Lambda function: answers `Endpoint::ListMaintenanceRuns` for API Gateway.

mod lambda;

lambda::main!(ListMaintenanceRuns);
