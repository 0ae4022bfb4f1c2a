use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Month, time};

/// Most breaks, and most findings, that a verification names; the counts beside them are exact.
pub(crate) const MAX_REPORTED_BREAKS: usize = 1_000;
/// Most breaks that a call of a verification logs one by one.
pub(crate) const MAX_LOGGED_BREAKS: u64 = 20;

/// What is to be verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerificationRequest {
    /// Only this month of the archive.
    pub month: Option<Month>,
    /// Only batches that this stream has rows in, and the stream's own links; by its contract-level id.
    pub stream: Option<String>,
    /// The rows of `EventLog`, too.
    pub full: bool,
}

/// One verification of the archive: what it is about, how far it is, and what it found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Its id.
    pub id: Uuid,
    /// The month that it is limited to, if it is.
    pub month: Option<Month>,
    /// The contract-level id of the stream that it is limited to, if it is.
    pub stream_id: Option<String>,
    /// Whether it looks at `EventLog`, too.
    pub full: bool,
    /// How it fares.
    pub status: VerificationStatus,
    /// Whether all was looked at.
    pub complete: bool,
    /// Seals recomputed.
    pub seals_done: u64,
    /// Rows looked at.
    pub rows_done: u64,
    /// Rows there are to look at: by the seals, and of `EventLog` by the planner's estimate.
    pub rows_total: u64,
    /// How many breaks it found.
    pub break_count: u64,
    /// The first thousand.
    pub breaks: Vec<Break>,
    /// How many rows the host's hash chain is not right at, and was not when they were archived.
    pub finding_count: u64,
    /// The first thousand.
    pub findings: Vec<Finding>,
    /// Rows whose `entry_hash` is that of what they were before the host completed their metadata: no finding.
    pub completed_by_host: u64,
    /// When it started.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub started_at: DateTime<Utc>,
    /// When it last got further.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub updated_at: DateTime<Utc>,
    /// When all was looked at.
    #[serde(serialize_with = "time::optional_rfc3339_millis")]
    pub finished_at: Option<DateTime<Utc>>,
}

/// How a verification fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationStatus {
    /// It is under way, or was when its process ended.
    Running,
    /// It stopped before its end; the next one of the same kind continues it.
    Interrupted,
    /// All was looked at, and all is as it was archived; there may be findings.
    Passed,
    /// All was looked at, and there are breaks.
    Failed,
}

/// Something that is not as it was archived, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Break {
    /// What is wrong.
    pub kind: BreakKind,
    /// The month of the archive; none in `EventLog`.
    pub month: Option<Month>,
    /// The seal of the month's chain; none where it is about no seal.
    pub sequence: Option<i32>,
    /// The row; none where it is missing, or where it is about no row.
    pub log_id: Option<String>,
    /// The same in words, with more about the place.
    pub message: String,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakKind {
    /// A row is not what was archived.
    RowAltered,
    /// A row that was archived is gone.
    RowMissing,
    /// A row was not archived by the service.
    RowInserted,
    /// A row's `parent_hash` is the `entry_hash` of no row, and was that of one when the row was archived.
    LinkBroken,
    /// A seal is not what was written.
    SealAltered,
    /// A seal is gone.
    SealMissing,
}

/// What the host's hash chain lacks at a row that is as it was archived, or at a row of `EventLog`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it lacks.
    pub kind: FindingKind,
    /// The month of the archive; none in `EventLog`.
    pub month: Option<Month>,
    /// The row.
    pub log_id: String,
    /// The same in words.
    pub message: String,
}

/// What the host's hash chain lacks at a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The row's `entry_hash` is not that of its contents.
    HashMismatch,
    /// The row's `parent_hash` is the `entry_hash` of no row.
    LinkMissing,
}
