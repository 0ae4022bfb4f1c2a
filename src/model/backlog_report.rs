use serde::Serialize;

/// How far maintenance is behind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BacklogReport {
    /// Hours since a run that takes snapshots and archives was last done with all of it; since the service's tables were made,
    /// when none ever was.
    pub hours_since_last_success: f64,
    /// Logs that are due, by the planner's estimate; those on hold included.
    pub backlog_rows: u64,
    /// How long the oldest of them has been due, in seconds; 0 when none is.
    pub backlog_age_seconds: f64,
    /// What verifications have found that got further within the last day.
    pub verification_breaks: u64,
}
