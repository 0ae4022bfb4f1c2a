//! Lambda function: answers `Endpoint::ListStreamEvents` for API Gateway.

mod lambda;

lambda::main!(ListStreamEvents);
