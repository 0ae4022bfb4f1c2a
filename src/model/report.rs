use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Month, time};

/// Most ids that a report names; the counts beside them are exact.
pub(crate) const MAX_REPORTED_IDS: usize = 100;

/// What [`create_monthly_snapshots`](crate::SnapshotService::create_monthly_snapshots) did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotReport {
    /// The month of the snapshots: that of the run's start.
    pub snapshot_month: Month,
    /// How many snapshots were written.
    pub snapshots_created: u64,
    /// How many of these have no amounts, because the stream's `amount` is not an integer of at most 39 digits.
    pub unparsed_amounts: u64,
    /// `false` when the deadline came first; running again continues.
    pub complete: bool,
}

/// What [`archive_old_logs`](crate::SnapshotService::archive_old_logs) did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveReport {
    /// Logs created before this instant were due.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub cutoff: DateTime<Utc>,
    /// How many logs moved to the archive.
    pub logs_archived: u64,
    /// How many logs were dropped from `EventLog` because the archive already had them (domain rule 6).
    pub already_archived: u64,
    /// How many logs stayed because the archive has them with other contents (domain rule 6).
    pub conflicts: u64,
    /// Ids of the conflicting logs, the first hundred.
    pub conflict_ids: Vec<String>,
    /// Due logs that stayed for another reason.
    pub held_back: Vec<HeldBack>,
    /// `false` when the deadline came first; running again continues.
    pub complete: bool,
}

/// What [`run_maintenance`](crate::SnapshotService::run_maintenance) did: a snapshot report and an archive report as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceReport {
    /// The month of the snapshots: that of the run's start.
    pub snapshot_month: Month,
    /// How many snapshots were written.
    pub snapshots_created: u64,
    /// How many of these have no amounts.
    pub unparsed_amounts: u64,
    /// The archive's part; its `complete` covers the whole run.
    #[serde(flatten)]
    pub archive: ArchiveReport,
}

/// Due logs that stayed in `EventLog`, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldBack {
    /// Why they stayed.
    pub reason: HeldBackReason,
    /// What that means, in words.
    pub message: &'static str,
    /// How many logs.
    pub rows: u64,
    /// Their ids, where known.
    pub ids: Vec<String>,
}

/// Why due logs stayed in `EventLog`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBackReason {
    /// The newest row of a hash chain: the host takes its hash as the next event's parent (domain rule 7).
    ChainHead,
    /// Locked by another session, or written behind the run while it worked.
    InUse,
}

impl HeldBack {
    pub(crate) fn chain_head(id: String) -> Self {
        Self {
            reason: HeldBackReason::ChainHead,
            message: "the newest row stays: the host takes its entry_hash as the next event's parent_hash",
            rows: 1,
            ids: vec![id],
        }
    }

    pub(crate) fn in_use(rows: u64) -> Self {
        Self {
            reason: HeldBackReason::InUse,
            message: "locked by another session or written while the run worked; the next run takes them",
            rows,
            ids: Vec::new(),
        }
    }
}
