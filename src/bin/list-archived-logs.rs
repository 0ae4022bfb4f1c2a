//! Lambda function: answers `Endpoint::ListArchivedLogs` for API Gateway.

mod lambda;

lambda::main!(ListArchivedLogs);
