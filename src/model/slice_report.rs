use std::time::Duration;

use uuid::Uuid;

/// What a slice of a run has committed since it last reported: reports add up, also where the slice fails. What one
/// that is killed has not yet reported is in the run's own counters only.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceReport {
    /// The run.
    pub run: Uuid,
    /// Snapshots written.
    pub snapshots_created: u64,
    /// Those of them without amounts, because the stream's `amount` is not an integer of at most 39 digits.
    pub unparsed_amounts: u64,
    /// Logs moved to the archive.
    pub logs_archived: u64,
    /// Those of them whose `entry_hash` is not that of their contents.
    pub hash_mismatches: u64,
    /// Logs of the archive whose `parent_hash` is the `entry_hash` of no row, as far as that was found out.
    pub links_missing: u64,
    /// Rows moved in a second, over the slice; none while none is moved.
    pub rows_per_second: Option<f64>,
    /// How long each batch took that had rows; a hundred at most.
    pub batch_times: Vec<Duration>,
    /// How the slice ended; none while it goes on.
    pub outcome: Option<SliceOutcome>,
}

/// How a slice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceOutcome {
    /// How long it took.
    pub time: Duration,
    /// Whether an error ended it, which leaves the run failed.
    pub failed: bool,
}

impl SliceReport {
    /// Nothing so far.
    pub(crate) fn empty(run: Uuid) -> Self {
        Self {
            run,
            snapshots_created: 0,
            unparsed_amounts: 0,
            logs_archived: 0,
            hash_mismatches: 0,
            links_missing: 0,
            rows_per_second: None,
            batch_times: Vec::new(),
            outcome: None,
        }
    }
}
