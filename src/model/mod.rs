//! What the service speaks of: validated values, without I/O.

mod archived_log;
mod cursor;
mod month;
mod page;
mod report;
mod snapshot;
mod stream_id;
mod time;

pub use archived_log::{ArchiveFilter, ArchivedLog};
pub use cursor::{ArchivePosition, Cursor, Position, SnapshotPosition};
pub use month::Month;
pub use page::{Page, PageRequest};
pub use report::{ArchiveReport, HeldBack, HeldBackReason, MaintenanceReport, SnapshotReport};
pub use snapshot::StreamSnapshot;
pub use stream_id::{StreamId, StreamIds};

pub(crate) use page::{MAX_PAGE_BYTES, wire_bytes};
pub(crate) use report::MAX_REPORTED_IDS;
