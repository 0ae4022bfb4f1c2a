use serde::Serialize;

/// How far maintenance is behind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BacklogReport {
    /// Hours since a run that takes snapshots and archives was last done with all of it; since the service's tables
    /// were made, when none ever was.
    pub hours_since_last_success: f64,
    /// Logs that are due, by the planner's estimate; those that are held back included. None when `EventLog` was too
    /// busy to tell.
    pub backlog_rows: Option<u64>,
    /// How long the oldest of them has been due, in seconds; 0 when none is. None as above.
    pub backlog_age_seconds: Option<f64>,
    /// What is not as it was archived, by verifications that got further within the last day.
    pub verification_breaks: u64,
}
