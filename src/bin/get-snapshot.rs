//! Lambda function: answers `Endpoint::GetSnapshot` for API Gateway.

mod lambda;

lambda::main!(GetSnapshot);
