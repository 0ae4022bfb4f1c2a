//! Lambda function: answers `Endpoint::ListSnapshots` for API Gateway.

mod lambda;

lambda::main!(ListSnapshots);
