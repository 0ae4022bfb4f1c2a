//! Lambda function: answers `Endpoint::GetStreamState` for API Gateway.

mod lambda;

lambda::main!(GetStreamState);
