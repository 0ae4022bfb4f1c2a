use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Region};
use aws_types::SdkConfig;

/// Who asks AWS, and where it is: as Lambda says it in the environment. The SDK's own way also looks for profiles, containers
/// and machines, which a cold start would load for nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AwsConfig {
    pub(crate) region: Option<Region>,
    /// Its debug form does not tell the secret key.
    pub(crate) credentials: Option<Credentials>,
    /// Where all services are, instead of at their own addresses.
    endpoint_url: Option<String>,
}

impl AwsConfig {
    pub(crate) fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let keys = lookup("AWS_ACCESS_KEY_ID").zip(lookup("AWS_SECRET_ACCESS_KEY"));
        let token = lookup("AWS_SESSION_TOKEN");
        Self {
            region: lookup("AWS_REGION").map(Region::new),
            credentials: keys.map(|(id, key)| Credentials::new(id, key, token, None, "environment")),
            endpoint_url: lookup("AWS_ENDPOINT_URL"),
        }
    }

    /// For clients whose calls may take `timeout`, with retries.
    pub(crate) fn for_calls_within(&self, timeout: Duration) -> SdkConfig {
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(self.region.clone())
            .timeout_config(TimeoutConfig::builder().operation_timeout(timeout).build());
        config.set_endpoint_url(self.endpoint_url.clone());
        config.set_credentials_provider(self.credentials.clone().map(SharedCredentialsProvider::new));
        config.build()
    }
}
