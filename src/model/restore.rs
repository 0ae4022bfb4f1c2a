use chrono::{DateTime, Timelike, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ContractId, Month, StreamId, time};
use crate::error::{Error, Result};

/// Which archived logs are to be moved back: those that match all that is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    pub(crate) stream: Option<StreamId>,
    pub(crate) from: Option<DateTime<Utc>>,
    pub(crate) to: Option<DateTime<Utc>>,
    pub(crate) run: Option<Uuid>,
}

impl RestoreRequest {
    /// The logs of `stream` (any of its ids), created at or after `from` and before `to`, that `run` archived.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when nothing is named, `to` is not after `from`, or a time is not in whole milliseconds.
    pub fn new(
        stream: Option<StreamId>,
        from: Option<DateTime<Utc>>,
        to: Option<DateTime<Utc>>,
        run: Option<Uuid>,
    ) -> Result<Self> {
        if stream.is_none() && from.is_none() && to.is_none() && run.is_none() {
            return Err(Error::invalid("restore", "must name a stream, a time or a run"));
        }
        for (name, time) in [("from", from), ("to", to)] {
            if time.is_some_and(|time| time.nanosecond() % 1_000_000 != 0) {
                return Err(Error::invalid(name, "must be in whole milliseconds"));
            }
        }
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return Err(Error::invalid("to", "must be after from"));
        }
        Ok(Self { stream, from, to, run })
    }
}

/// What a restore is about, fixed when it starts. All archived logs, where nothing is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTarget {
    /// The contract id that the stream has, or had last.
    pub stream: Option<String>,
    /// All contract ids that the stream's logs carry, where there are others than `stream`, or where another stream had one of
    /// them at another time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract_ids: Option<Vec<ContractId>>,
    /// Created at this instant or later.
    #[serde(serialize_with = "time::optional_rfc3339_millis")]
    pub from: Option<DateTime<Utc>>,
    /// Created before this instant.
    #[serde(serialize_with = "time::optional_rfc3339_millis")]
    pub to: Option<DateTime<Utc>>,
    /// Archived by this run.
    pub run: Option<Uuid>,
}

impl RestoreTarget {
    /// The contract ids that matching logs carry; `None` where all do.
    pub(crate) fn contract_ids(&self) -> Option<Vec<ContractId>> {
        let stream = self.stream.as_ref()?;
        Some(self.contract_ids.clone().unwrap_or_else(|| vec![ContractId::always(stream.clone())]))
    }

    /// Whether logs of `month` can match.
    pub(crate) fn overlaps(&self, month: Month) -> bool {
        self.from.is_none_or(|from| from.naive_utc() < month.end())
            && self.to.is_none_or(|to| to.naive_utc() > month.start())
    }
}

/// Why an archived log does not go back to `EventLog`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConflictDetail {
    /// The log.
    pub log_id: String,
    /// The constraint or index that refuses it; the column, where that must have a value; the function, where a trigger
    /// raises an error; none where the reason says all.
    pub constraint: Option<String>,
    /// `same_id` or `same_event` when `EventLog` has a log of its id or its event; `no_partition` when no partition takes it;
    /// else PostgreSQL's name of the condition, such as `foreign_key_violation` or `invalid_text_representation`.
    pub reason: String,
}

impl std::fmt::Display for ConflictDetail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { log_id, constraint, reason } = self;
        match constraint {
            Some(constraint) => write!(f, "{log_id}: {reason} of {constraint}"),
            None => write!(f, "{log_id}: {reason}"),
        }
    }
}

/// What a restore would do if it started now; nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreDryRunReport {
    /// Always `true`.
    pub dry_run: bool,
    /// What it would be about.
    pub target: RestoreTarget,
    /// Logs that would be moved back.
    pub logs_to_restore: u64,
    /// Logs that would stay, their stream being under legal hold.
    pub on_hold: u64,
    /// Logs that would stay, because `EventLog` has a log of the same id, or the same event under another.
    pub in_the_way: u64,
    /// The same, by month, oldest first.
    pub months: Vec<RestorableMonth>,
}

/// The matching logs of one month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorableMonth {
    /// The month.
    pub month: Month,
    /// How many logs would be moved back.
    pub rows: u64,
    /// How many are on hold.
    pub on_hold: u64,
    /// How many have a log of `EventLog` in their way.
    pub in_the_way: u64,
}

/// A stream whose logs may be neither archived nor restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LegalHold {
    /// Of this hold: a stream may have several.
    pub id: Uuid,
    /// The contract id, which the logs carry; `Stream.id` where that was not known when the hold was placed. The hold covers
    /// every other contract id that the stream ever had.
    pub stream_id: String,
    /// Why.
    pub reason: String,
    /// Who placed it.
    pub held_by: String,
    /// Since when.
    #[serde(serialize_with = "time::rfc3339_millis")]
    pub held_at: DateTime<Utc>,
    /// What is suspicious about it, in words; told when it is placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Which restored logs are to be released; all, where nothing is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReleaseRequest {
    /// Those of a stream, by any of its ids.
    pub stream: Option<StreamId>,
    /// Those that this restore moved back.
    pub run: Option<Uuid>,
}
