//! Lambda function: answers `Endpoint::GetVerification` for API Gateway.

mod lambda;

lambda::main!(GetVerification);
