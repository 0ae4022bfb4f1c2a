//! Lambda function: answers `Endpoint::GetMaintenanceRun` for API Gateway.

mod lambda;

lambda::main!(GetMaintenanceRun);
