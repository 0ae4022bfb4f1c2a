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
