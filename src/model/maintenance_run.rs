use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ConflictDetail, HeldBack, Month, RestoreTarget, time};
use crate::error::HostFinding;

/// Most ids that a run names; the counts beside them are exact.
pub(crate) const MAX_REPORTED_IDS: usize = 100;

/// One run of maintenance: what it is about, what it has done so far, and how far it is.
///
/// A run goes on over as many slices as it needs: each call works until its deadline and leaves the rest to the next.
/// Snapshot month and cutoff are fixed when it starts; its counters cover all slices.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceRun {
    /// The run's id.
    pub id: Uuid,
    /// What started it.
    pub trigger: TriggerKind,
    /// What it is to do.
    pub scope: Scope,
    /// The month that a scheduled run is for; none for others.
    pub period: Option<Month>,
    /// What a restore or rollback is about; none for other runs.
    pub target: Option<RestoreTarget>,
    /// The month of the snapshots: that of the run's start.
    pub snapshot_month: Month,
    /// Logs created before this instant are due.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub cutoff: DateTime<Utc>,
    /// Whether snapshots of the month that were there before are retaken.
    pub refresh: bool,
    /// Whether it may archive more rows than the limit.
    pub force: bool,
    /// What it is at.
    pub phase: Phase,
    /// Whether somebody works on it, and how it ended.
    pub status: RunStatus,
    /// Whether all of it is done.
    pub complete: bool,
    /// How much of its phase is done, from 0 to 100; by the planner's estimate of the whole.
    pub percent: f64,
    /// Streams seen by the last slice that took snapshots; all of them, once that is done.
    pub streams: u64,
    /// Streams there are, by the planner's estimate; none when all had their snapshots at the start.
    pub streams_estimated: Option<u64>,
    /// Snapshots written.
    pub snapshots_created: u64,
    /// Snapshots that were there already: streams = created + existing, once all are taken.
    pub snapshots_existing: u64,
    /// Snapshots written without amounts, because the stream's `amount` is not an integer of at most 39 digits.
    pub unparsed_amounts: u64,
    /// Rows due when archiving began, by the planner's estimate; of a restore, counted; none before.
    pub rows_estimated: Option<u64>,
    /// Logs moved to the archive.
    pub logs_archived: u64,
    /// Logs dropped from `EventLog` because the archive already had them (domain rule 6).
    pub already_archived: u64,
    /// Logs dropped from `EventLog`, and kept on record, because the host had ingested an archived event again.
    pub duplicates_dropped: u64,
    /// Logs archived whose `entry_hash` is not that of their contents. They are named by the verification.
    pub hash_mismatches: u64,
    /// Logs archived whose `entry_hash` is that of what they were before the host completed their metadata: no finding.
    pub completed_by_host: u64,
    /// Logs archived whose `parent_hash` was the `entry_hash` of no row then.
    pub links_missing: u64,
    /// Logs moved back to `EventLog`.
    pub logs_restored: u64,
    /// Logs that stayed because the archive has them, or their event under another id, with other contents (domain rule 6);
    /// of a restore, because `EventLog` has them, or their event under another id, or does not take them.
    pub conflicts: u64,
    /// Ids of the conflicting logs, the first hundred.
    pub conflict_ids: Vec<String>,
    /// Why these stay in the archive, of a restore or rollback.
    pub conflict_details: Vec<ConflictDetail>,
    /// Due logs that stayed for another reason.
    pub held_back: Vec<HeldBack>,
    /// What of the host's database its slices could not work with, left alone, or tell of.
    pub findings: Vec<HostFinding>,
    /// The month that is archived or restored, or was last.
    pub current_month: Option<Month>,
    /// Rows moved in a second, over the last slice.
    pub rows_per_second: Option<f64>,
    /// Seconds that moving them will take yet, by estimate and rate.
    pub remaining_seconds: Option<u64>,
    /// Why it pauses between two batches right now: the limit that is passed.
    pub waiting_for: Option<String>,
    /// Why it last stopped before its end.
    pub stop_reason: Option<StopReason>,
    /// The error that it last stopped with.
    pub error: Option<String>,
    /// Slices begun.
    pub attempts: i32,
    /// When it started.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub started_at: DateTime<Utc>,
    /// When it last got further.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub updated_at: DateTime<Utc>,
    /// When it ended for good; none while it goes on or waits to be continued.
    #[serde(serialize_with = "time::optional_rfc3339_millis")]
    pub finished_at: Option<DateTime<Utc>>,
}

impl MaintenanceRun {
    /// Whether it will have done, once it is complete, what `request` asks for in `month`.
    pub(crate) fn does(&self, scope: Scope, request: &MaintenanceRequest, month: Month) -> bool {
        let period = request.trigger.period();
        (self.scope == scope || self.scope == Scope::Maintenance)
            && self.snapshot_month >= month
            && (period.is_none() || self.period == period)
            && (self.refresh || !request.refresh)
    }

    /// Rows that it has dealt with.
    pub fn rows(&self) -> u64 {
        self.logs_archived + self.already_archived + self.duplicates_dropped + self.logs_restored
    }
}

/// A value that is a word, in JSON and in the database.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// What starts a run.
    TriggerKind {
        /// The monthly schedule.
        Schedule = "schedule",
        /// A request over HTTP, or an invocation by hand.
        Api = "api",
        /// The operator's command.
        Cli = "cli",
    }
}

words! {
    /// What a run is to do.
    Scope {
        /// Snapshots, then the archive.
        Maintenance = "maintenance",
        /// Snapshots only.
        Snapshots = "snapshots",
        /// The archive only.
        Archive = "archive",
        /// Moving archived logs back to `EventLog`.
        Restore = "restore",
        /// The same with all of them, before the service's tables are dropped.
        Rollback = "rollback",
    }
}

impl Scope {
    /// Whether a run of this scope and one of `other` may not be open at the same time: of restores there is one, of other
    /// runs there is one, and beside a rollback there is none.
    pub(crate) fn excludes(self, other: Self) -> bool {
        let scopes = [self, other];
        scopes.contains(&Self::Rollback) || (self == Self::Restore) == (other == Self::Restore)
    }

    /// Whether its runs take a month's snapshots.
    pub(crate) fn takes_snapshots(self) -> bool {
        matches!(self, Self::Maintenance | Self::Snapshots)
    }
}

words! {
    /// What a run is at.
    Phase {
        /// Taking the month's snapshots.
        Snapshots = "snapshots",
        /// Moving logs.
        Archive = "archive",
        /// Moving logs back.
        Restore = "restore",
        /// Vacuuming `EventLog`.
        Vacuum = "vacuum",
        /// Nothing is left to do.
        Done = "done",
    }
}

words! {
    /// How a run fares.
    RunStatus {
        /// Somebody works on it.
        Running = "running",
        /// All of it is done.
        Succeeded = "succeeded",
        /// All of it is done, and some rows have hashes that are not theirs.
        SucceededWithFindings = "succeeded_with_findings",
        /// Its last slice ended with an error; the next trigger continues it.
        Failed = "failed",
        /// Its last slice stopped early; the next trigger continues it, unless it was cancelled.
        Interrupted = "interrupted",
    }
}

words! {
    /// Why a run stopped before its end.
    StopReason {
        /// The slice's time was over.
        Deadline = "deadline",
        /// Ctrl-C or SIGTERM.
        Signal = "signal",
        /// An operator paused maintenance.
        Paused = "paused",
        /// An operator cancelled the run: it is not continued.
        Cancelled = "cancelled",
        /// Something went wrong: see the run's error.
        Error = "error",
        /// Its owner died, or was silent for longer than the lease lasts.
        LeaseExpired = "lease_expired",
    }
}

/// What a run is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaintenanceRequest {
    /// What asks.
    pub trigger: Trigger,
    /// Whether to retake this month's snapshots.
    pub refresh: bool,
    /// Whether to archive more rows than the limit.
    pub force: bool,
}

/// What asks for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The monthly schedule; each period is run once.
    Schedule {
        /// The month that the schedule fired for.
        period: Month,
    },
    /// A request over HTTP, or an invocation by hand.
    Api,
    /// The operator's command.
    Cli,
}

impl Trigger {
    /// A request by this trigger, without refresh or force.
    pub fn request(self) -> MaintenanceRequest {
        MaintenanceRequest { trigger: self, refresh: false, force: false }
    }

    pub(crate) fn kind(self) -> TriggerKind {
        match self {
            Self::Schedule { .. } => TriggerKind::Schedule,
            Self::Api => TriggerKind::Api,
            Self::Cli => TriggerKind::Cli,
        }
    }

    pub(crate) fn period(self) -> Option<Month> {
        if let Self::Schedule { period } = self { Some(period) } else { None }
    }
}

/// A pause of all maintenance, until an operator resumes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MaintenancePause {
    /// Why.
    pub reason: String,
    /// Who paused it.
    pub paused_by: String,
    /// Since when.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub paused_at: DateTime<Utc>,
}

/// What a run would do if it started now; nothing was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DryRunReport {
    /// Always `true`.
    pub dry_run: bool,
    /// The month that snapshots would be of.
    pub snapshot_month: Month,
    /// Snapshots that would be written.
    pub snapshots_due: u64,
    /// Logs created before this instant are due.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub cutoff: DateTime<Utc>,
    /// Logs that are due.
    pub logs_due: u64,
    /// The same, by month, oldest first.
    pub months: Vec<DueMonth>,
    /// Due logs that would stay.
    pub held_back: Vec<HeldBack>,
    /// Seconds that archiving would take: at the rate of the last run that archived, else at a cautious guess.
    pub estimated_seconds: u64,
}

/// The due logs of one month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DueMonth {
    /// The month.
    pub month: Month,
    /// How many logs.
    pub rows: u64,
    /// The same, by event type.
    pub event_types: std::collections::BTreeMap<String, u64>,
}
