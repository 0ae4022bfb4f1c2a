use serde::Serialize;

use super::{Cursor, ListPosition};
use crate::error::{Error, Result};

/// Which part of a list is wanted.
#[derive(Debug, Clone)]
pub struct PageRequest<P> {
    limit: u16,
    cursor: Option<Cursor<P>>,
}

impl<P: ListPosition> PageRequest<P> {
    /// Rows of a page when the caller does not say.
    pub const DEFAULT_LIMIT: u16 = 100;
    /// Most rows of a page.
    pub const MAX_LIMIT: u16 = 1000;

    /// The page of at most `limit` rows after `cursor`, or the first one.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when `limit` is not 1 to 1000.
    pub fn new(limit: u16, cursor: Option<Cursor<P>>) -> Result<Self> {
        if limit == 0 || limit > Self::MAX_LIMIT {
            return Err(Error::invalid("limit", "must be a whole number from 1 to 1000"));
        }
        Ok(Self { limit, cursor })
    }

    /// The first page, of the default size.
    pub fn first() -> Self {
        Self { limit: Self::DEFAULT_LIMIT, cursor: None }
    }

    pub(crate) fn limit(&self) -> usize {
        usize::from(self.limit)
    }

    /// One more than the page holds, to know whether there is a next one.
    pub(crate) fn rows_to_read(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    pub(crate) fn after(&self) -> Option<&P> {
        self.cursor.as_ref().map(Cursor::after)
    }
}

/// A part of a list and where the next one starts.
#[derive(Debug, Clone)]
pub struct Page<T, P> {
    /// The rows, in the list's order.
    pub items: Vec<T>,
    /// Where to continue; `None` at the list's end.
    pub next_cursor: Option<Cursor<P>>,
    /// How many rows are on no page, because no answer could say their time: infinite, before the year 1, or after 9999. Of a
    /// timeline only.
    pub left_out: u64,
}

/// What a page may weigh on the wire, in bytes. Lambda answers with at most 6 MiB, in which the body is a JSON string
/// within JSON: the difference is room for the envelope and the response's headers.
pub(crate) const MAX_PAGE_BYTES: usize = 5_500_000;

/// What `item` weighs in a Lambda response: its JSON, escaped once more because the body is a string within JSON.
///
/// # Errors
///
/// [`Error::Serialize`] when it has no JSON form.
pub(crate) fn wire_bytes(item: &impl Serialize) -> Result<usize> {
    let json = serde_json::to_vec(item).map_err(Error::Serialize)?;
    let escapes = json.iter().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    Ok(json.len() + escapes + 1)
}
