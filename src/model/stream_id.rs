use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest stream id taken, in characters.
const MAX_CHARACTERS: usize = 200;

/// Either of a stream's two ids, as a caller names it (domain rule 8).
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

/// Both ids of one stream (domain rule 8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamIds {
    /// `Stream.id`: what snapshots carry.
    pub id: String,
    /// `Stream."streamId"`: what events carry.
    pub contract_id: String,
}

impl StreamIds {
    /// Whether `id` is one of the two.
    pub fn include(&self, id: &StreamId) -> bool {
        self.id == id.0 || self.contract_id == id.0
    }
}
