use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Month, time};

/// A month of the archive, by what its seals say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchivedMonth {
    /// The month.
    pub month: Month,
    /// Logs that are in it.
    pub rows: u64,
    /// Seals of its chain.
    pub seals: u64,
    /// When the last rows were sealed; none where none are.
    #[serde(serialize_with = "time::optional_rfc3339_millis")]
    pub sealed_at: Option<DateTime<Utc>>,
    /// The digest of the last seal, in hexadecimal: who keeps it elsewhere can prove that the month was not rewritten.
    pub digest: String,
}
