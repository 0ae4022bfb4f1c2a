use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Most ids that a run names of the logs that stayed for one reason; the counts beside them are exact.
pub(crate) const MAX_HELD_BACK_IDS: usize = 1_000;

/// Due logs that stayed in `EventLog`, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldBack {
    /// Why they stayed.
    pub reason: HeldBackReason,
    /// What that means, in words.
    pub message: String,
    /// How many logs.
    pub rows: u64,
    /// Their ids, oldest first, a thousand at most.
    pub ids: Vec<String>,
    /// What of the host's holds them: constraints and their tables. Empty for other reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
}

/// Why due logs stayed in `EventLog`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBackReason {
    /// The newest row of a hash chain: the host takes its hash as the next event's parent (domain rule 7).
    ChainHead,
    /// Locked by another session, or written behind the run while it worked.
    InUse,
    /// Of a stream under legal hold.
    LegalHold,
    /// Restored, and not released.
    Restored,
    /// Another table references them.
    Referenced,
    /// Of a type that `KEEP_EVENT_TYPES` names.
    KeptType,
    /// Their `createdAt` is infinite, before the year 1 or after 9999.
    TimeOutOfRange,
    /// The archive has them, or their event under another id, with other contents (domain rule 6).
    Conflict,
}

/// As a run keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredHeldBack {
    reason: HeldBackReason,
    rows: u64,
    ids: Vec<String>,
    #[serde(default)]
    objects: Vec<String>,
}

impl From<&HeldBack> for StoredHeldBack {
    fn from(HeldBack { reason, rows, ids, objects, .. }: &HeldBack) -> Self {
        Self { reason: *reason, rows: *rows, ids: ids.clone(), objects: objects.clone() }
    }
}

impl From<StoredHeldBack> for HeldBack {
    fn from(StoredHeldBack { reason, rows, ids, objects }: StoredHeldBack) -> Self {
        Self::new(reason, rows, ids, objects)
    }
}

impl HeldBack {
    pub(crate) fn new(reason: HeldBackReason, rows: u64, ids: Vec<String>, objects: Vec<String>) -> Self {
        let message = match reason {
            HeldBackReason::ChainHead => {
                "the newest row stays: the host takes its entry_hash as the next event's parent_hash".into()
            }
            HeldBackReason::InUse => {
                "locked by another session or written while the run worked; the next run takes them".into()
            }
            HeldBackReason::LegalHold => "under legal hold; `snapshots release --hold` ends it".into(),
            HeldBackReason::Restored => "restored from the archive; `snapshots release` lets them go".into(),
            HeldBackReason::Referenced => format!("other tables reference them: {}", objects.join(", ")),
            HeldBackReason::KeptType => "of a type that KEEP_EVENT_TYPES keeps".into(),
            HeldBackReason::TimeOutOfRange => {
                "their \"createdAt\" is infinite, before the year 1 or after 9999; give them the time that they were logged at"
                    .into()
            }
            HeldBackReason::Conflict => {
                "the archive has them, or their event under another id, with other contents; compare the two".into()
            }
        };
        Self { reason, message, rows, ids, objects }
    }

    /// `rows` that stayed for a reason of which no ids are kept.
    pub(crate) fn rows(reason: HeldBackReason, rows: u64) -> Self {
        Self::new(reason, rows, Vec::new(), Vec::new())
    }

    /// These and `others` that stayed for the same reason.
    pub(crate) fn add(&mut self, others: Self) {
        let mut ids = std::mem::take(&mut self.ids);
        ids.extend(others.ids);
        ids.truncate(MAX_HELD_BACK_IDS);
        let objects: BTreeSet<_> = std::mem::take(&mut self.objects).into_iter().chain(others.objects).collect();
        *self = Self::new(self.reason, self.rows + others.rows, ids, objects.into_iter().collect());
    }
}
