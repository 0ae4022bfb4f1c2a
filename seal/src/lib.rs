//! What proves the archive, as `docs/SEALS.md` says it: the digest of a row, the host's entry hash, and the chain of seals. Pure:
//! rows come as texts, which the service reads from PostgreSQL.
//!
//! Refused: digests in SQL. They cost the host's server as much as the moving of the rows.

mod batch;
mod chain;
mod difference;
mod row;

pub use batch::{Batch, BatchFindings, LinkTracker, Mismatch, Places};
pub use chain::{Digest, SealHeader, SealedRow, SealedRows, removal_digest, sha256, timestamp};
pub use difference::{SealDifference, SealedLeaves};
pub use row::{EntryHash, RowForm, RowHasher, Texts};
