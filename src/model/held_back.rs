use serde::Serialize;

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
    /// Of a stream under legal hold.
    LegalHold,
    /// Restored, and not released.
    Restored,
}

impl HeldBack {
    pub(crate) fn chain_head(id: String) -> Self {
        Self { ids: vec![id], ..Self::rows(HeldBackReason::ChainHead, 1) }
    }

    /// `rows` that stayed for one of the reasons that have no ids.
    pub(crate) fn rows(reason: HeldBackReason, rows: u64) -> Self {
        let message = match reason {
            HeldBackReason::ChainHead => {
                "the newest row stays: the host takes its entry_hash as the next event's parent_hash"
            }
            HeldBackReason::InUse => {
                "locked by another session or written while the run worked; the next run takes them"
            }
            HeldBackReason::LegalHold => "under legal hold; `snapshots release --hold` ends it",
            HeldBackReason::Restored => "restored from the archive; `snapshots release` lets them go",
        };
        Self { reason, message, rows, ids: Vec::new() }
    }
}
