use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest stream id taken, in characters.
const MAX_CHARACTERS: usize = 200;

/// Any of a stream's ids, of either kind, as a caller names it (domain rule 8).
///
/// ```
/// use snapshot_service::StreamId;
///
/// assert!(StreamId::new("clx0stream").is_ok());
/// assert!(StreamId::new("").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamId(String);

impl StreamId {
    /// Checks `id`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when it is empty, longer than 200 characters, or contains a NUL, which no
    /// PostgreSQL text can hold.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        if id.is_empty() || id.contains('\0') || id.chars().count() > MAX_CHARACTERS {
            return Err(Error::invalid("streamId", "must have 1 to 200 characters, none of them NUL"));
        }
        Ok(Self(id))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All that one stream is and was called, by ids of both kinds (domain rule 8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamNames(pub(crate) Vec<String>);

impl StreamNames {
    /// Whether `id` is one of them.
    pub fn include(&self, id: &StreamId) -> bool {
        self.0.contains(&id.0)
    }
}

impl From<Vec<String>> for StreamNames {
    fn from(names: Vec<String>) -> Self {
        Self(names)
    }
}

/// A contract id of a stream, and when it names that stream: another stream may have it before or after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContractId {
    /// The contract id, which logs carry.
    pub id: String,
    /// From this instant on; `None` for always.
    pub from: Option<DateTime<Utc>>,
    /// Before this instant; `None` for always.
    pub until: Option<DateTime<Utc>>,
}

impl ContractId {
    /// One that has never named another stream.
    pub(crate) fn always(id: String) -> Self {
        Self { id, from: None, until: None }
    }
}
