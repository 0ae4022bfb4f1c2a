//! What the service speaks of: validated values, without I/O.

mod archived_month;
mod backlog_report;
mod cursor;
mod event;
mod held_back;
mod maintenance_run;
mod month;
mod page;
mod restore;
mod slice_report;
mod snapshot;
mod step;
mod stream_id;
mod time;
mod verification;

pub use archived_month::ArchivedMonth;
pub use backlog_report::BacklogReport;
pub use cursor::{ArchivePosition, Cursor, EventPosition, ListPosition, RunPosition, SnapshotPosition, StatePosition};
pub use event::{ArchiveFilter, LoggedEvent, StreamEvent, StreamState, Tier};
pub use held_back::{HeldBack, HeldBackReason};
pub use maintenance_run::{
    DryRunReport, DueMonth, MaintenancePause, MaintenanceRequest, MaintenanceRun, Phase, RunStatus, Scope, StopReason,
    Trigger, TriggerKind,
};
pub use month::Month;
pub use page::{Page, PageRequest};
pub use restore::{
    ConflictDetail, LegalHold, ReleaseRequest, RestorableMonth, RestoreDryRunReport, RestoreRequest, RestoreTarget,
};
pub use slice_report::{SliceOutcome, SliceReport};
pub use snapshot::{Boundary, StreamSnapshot};
pub use step::{Step, StepError, StepEvent, StepReport, StepRequest};
pub use stream_id::{ContractId, StreamId, StreamNames};
pub use verification::{Break, BreakKind, Finding, FindingKind, Verification, VerificationRequest, VerificationStatus};

pub(crate) use held_back::{MAX_HELD_BACK_IDS, StoredHeldBack};
pub(crate) use maintenance_run::MAX_REPORTED_IDS;
pub(crate) use page::{MAX_PAGE_BYTES, wire_bytes};
pub(crate) use verification::{MAX_LOGGED_BREAKS, MAX_REPORTED_BREAKS};
