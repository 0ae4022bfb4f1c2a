//! What can go wrong, in the domain's terms.

use std::error::Error as StdError;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// A result whose error is [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation was not done.
///
/// The message is fit for a caller: it never contains text from the database. What the database said is in the source
/// chain, for the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A caller's value is not of the form it must have.
    #[error("{field} {wanted}")]
    InvalidInput {
        /// The parameter's name, as the caller knows it.
        field: &'static str,
        /// What it wants: `must be ...`.
        wanted: String,
    },
    /// What was asked for by name does not exist.
    #[error("{what} not found")]
    NotFound {
        /// What was asked for: `Snapshot`.
        what: &'static str,
    },
    /// A stream has no snapshot that was taken at or before the time asked for.
    #[error("no snapshot is as old as {}: {}", millis(*at), oldest_snapshot(oldest.as_ref()))]
    NoSnapshotBefore {
        /// The time asked for.
        at: DateTime<Utc>,
        /// The oldest snapshot's month and when it was taken; `None` when the stream has none.
        oldest: Option<(String, DateTime<Utc>)>,
    },
    /// A table of the host is missing.
    #[error(
        "the host's table \"{table}\" is missing: run the host's own migrations first, or say in which schema it is (HOST_SCHEMA)"
    )]
    HostTableMissing {
        /// The table's name.
        table: &'static str,
    },
    /// The service's own tables are missing or of an older version.
    #[error("the database lacks the service's tables: run `snapshots migrate`")]
    NotMigrated(#[source] Source),
    /// The login lacks a privilege.
    #[error("the database login lacks a privilege: grant it one of the service's roles, and run `snapshots migrate`")]
    NotPermitted(#[source] Source),
    /// `EventLog` has columns that the archive has not, or has with another type (domain rule 5).
    #[error("\"StreamArchive\" does not match the columns of \"EventLog\": {}; run `snapshots migrate`", columns.join(", "))]
    ArchiveColumnsDiffer {
        /// Each column with what is wrong about it.
        columns: Vec<String>,
    },
    /// A column of `EventLog` changed its type to one that would alter archived values.
    #[error(
        "archived values of \"{column}\" would change as {wanted}: give the column of \"EventLog\" its former type again, and \
         put values of the new one in a column of another name"
    )]
    ArchiveColumnNotConvertible {
        /// The column's name.
        column: String,
        /// The type it has in `EventLog`.
        wanted: String,
        /// What the database said, when it cannot convert at all.
        source: Option<tokio_postgres::Error>,
    },
    /// An archived log cannot go back to `EventLog` whole, or not at all.
    #[error("archived logs cannot go back to \"EventLog\": {}", columns.join(", "))]
    NotRestorable {
        /// Each column with what is wrong about it.
        columns: Vec<String>,
    },
    /// `EventLog` did not take archived logs back.
    #[error(
        "\"EventLog\" does not take {} back as they were: look at {}, disable what swallows or alters them (ALTER TABLE \
         \"EventLog\" DISABLE TRIGGER, or RULE), and restore again", refused_logs(*rows), hooks(by)
    )]
    RestoreRefused {
        /// How many, of one batch; 0 before the first.
        rows: u64,
        /// The triggers and rules that may be why, each with its table.
        by: Vec<String>,
    },
    /// Something of the host's cannot be worked with.
    #[error("{finding}")]
    HostRefuses {
        /// What, and the cure.
        finding: Box<HostFinding>,
    },
    /// Row security hides rows from the login.
    #[error("{finding}")]
    RowsHidden {
        /// Which, and the cure.
        finding: Box<HostFinding>,
    },
    /// The login does not see what it would need to see to keep a limit.
    #[error("{finding}")]
    LimitsHidden {
        /// Which, and the cure.
        finding: Box<HostFinding>,
    },
    /// Something keeps the rollback from bringing everything back.
    #[error("{reason}: nothing was dropped")]
    RollbackRefused {
        /// What, and what to do about it.
        reason: String,
    },
    /// What was read could not be written.
    #[error("what was read cannot be written")]
    Write(#[source] std::io::Error),
    /// A run is under way: somebody else owns it.
    #[error("maintenance run {run} is under way")]
    UnderWay {
        /// The run's id.
        run: Uuid,
        /// The month of a scheduled run.
        period: Option<String>,
        /// The run and how far it is, as JSON.
        progress: Box<RawValue>,
    },
    /// An operator paused maintenance.
    #[error("maintenance is paused since {since} by {by}: {reason}; `snapshots resume` ends the pause")]
    Paused {
        /// Since when.
        since: DateTime<Utc>,
        /// Who paused it.
        by: String,
        /// Why.
        reason: String,
    },
    /// The lease was taken by another owner, or the run was cancelled: what was not yet committed is not done.
    #[error("the lease of maintenance run {run} is lost")]
    LeaseLost {
        /// The run's id.
        run: Uuid,
    },
    /// Logs may only be archived when every stream has its snapshot of the month.
    #[error("the snapshots of {month} are not complete: take them first")]
    SnapshotsIncomplete {
        /// The month.
        month: String,
    },
    /// The month's table is there, but is no partition of the archive.
    #[error("the table of the archive for {month} is not attached to \"StreamArchive\": attach it")]
    PartitionDetached {
        /// The month.
        month: String,
    },
    /// Logs are kept for a month at least.
    #[error("the retention is {months} months: logs are kept for 1 month at least")]
    RetentionTooShort {
        /// What was asked for.
        months: u32,
    },
    /// The cutoff lies in the future by the database's clock.
    #[error("the cutoff {cutoff} is in the future by the database's clock: set this machine's clock")]
    CutoffInFuture {
        /// The cutoff.
        cutoff: DateTime<Utc>,
    },
    /// The database is a standby or refuses writes.
    #[error("the database is read-only (a standby, or set so): use the primary")]
    ReadOnlyDatabase,
    /// More rows are due than may be archived at once.
    #[error("more than {max_rows} logs are due (MAX_ARCHIVE_ROWS): look at them with a dry run, then force the run")]
    TooManyRows {
        /// The limit.
        max_rows: u64,
    },
    /// One row alone weighs more than a response may.
    #[error("{item} is larger than a response may be (6 MB): read it from the database")]
    ResponseTooLarge {
        /// Which row.
        item: String,
    },
    /// The database cannot be reached, or closed the connection.
    #[error("the database is unavailable")]
    Unavailable {
        /// Whether a connection was there and is lost: the next one is new, and may do.
        is_lost: bool,
        /// What the database or the connection said.
        source: Source,
    },
    /// A statement took longer than it may, waited too long for a lock, or lost against another transaction.
    #[error("the database is busy")]
    Busy {
        /// How it may be tried again; `None` where that does not help.
        retry: Option<Retry>,
        /// What the database said.
        source: Source,
    },
    /// What a transaction has read was changed by another one before it could commit.
    #[error("the database is busy: {what}")]
    Outdated {
        /// What has changed.
        what: &'static str,
    },
    /// The database refused a statement for a reason that only a bug or a foreign change explains.
    #[error("the database refused a statement")]
    Database {
        /// What made the statement fail.
        fault: Fault,
        /// What the database said.
        source: tokio_postgres::Error,
    },
    /// The migrations did not all run.
    #[error("a migration failed")]
    Migration(#[source] refinery::Error),
    /// Another migration of this database does not end.
    #[error(
        "another `migrate` is under way, of {holder}: wait until it has ended, or end it with SELECT pg_terminate_backend(<its process>), and migrate again"
    )]
    MigrationUnderWay {
        /// Who migrates, as far as the role may know.
        holder: String,
    },
    /// TLS could not be set up from the configuration.
    #[error("TLS cannot be set up")]
    Tls(#[source] Source),
    /// The database's secret could not be read.
    #[error("the database's secret cannot be read")]
    Secret(#[source] Source),
    /// A value has no JSON form.
    #[error("a row cannot be written as JSON")]
    Serialize(#[source] serde_json::Error),
    /// A stored value is none that the service writes.
    #[error("a stored value cannot be read: {what}")]
    Decode {
        /// Which: a column's name.
        what: &'static str,
        /// What is wrong with it.
        source: Source,
    },
    /// A scheduled function was given something that is no schedule's event.
    #[error("the event must be {{}} or come from a schedule, with \"source\" aws.scheduler or aws.events")]
    UnknownEvent,
    /// A step of the state machine that the function does not know: the two are of different versions.
    #[error("the event is no step of statemachine/maintenance.asl.json: deploy the two together")]
    UnknownStep(#[source] serde_json::Error),
    /// A run that a request left incomplete could not be handed to the state machine.
    #[error("maintenance run {run} is not complete and was not handed on to be continued: ask again")]
    NotContinued {
        /// The run's id.
        run: Uuid,
        /// Why.
        source: Source,
    },
}

/// The cause of an error, of whatever type.
pub(crate) type Source = Box<dyn StdError + Send + Sync>;

/// How a statement may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// With fewer rows: it took too long, or waited too long for a lock.
    Smaller,
    /// The same again, a little later: it lost against another transaction.
    Later,
}

/// What made a statement fail that the database refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Something about its rows, so that it may succeed with others.
    Rows,
    /// A table or a column that is not what it was.
    Columns,
    /// Anything else.
    Other,
}

/// Something about the host's database that maintenance cannot work with, leaves alone, or tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFinding {
    /// Its stable name; the runbook has an entry for each.
    pub code: String,
    /// What follows from it.
    pub effect: FindingEffect,
    /// The object that it is about: a table, a constraint, a trigger, a role.
    pub object: String,
    /// What is so, in one sentence.
    pub message: String,
    /// What to do about it, as SQL or a setting; none where there is nothing to do.
    pub cure: Option<String>,
}

impl std::fmt::Display for HostFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.cure.as_ref().map_or(Ok(()), |cure| write!(f, ": {cure}"))
    }
}

/// What follows from a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingEffect {
    /// No log is archived; snapshots are taken all the same.
    RefusesArchive,
    /// Neither is done.
    RefusesBoth,
    /// Some logs stay where they are.
    Holds,
    /// Nothing: somebody should know.
    Warns,
}

impl FindingEffect {
    /// Whether snapshots are refused.
    pub fn refuses_snapshots(self) -> bool {
        matches!(self, Self::RefusesBoth)
    }

    /// Whether archiving is refused.
    pub fn refuses_archive(self) -> bool {
        matches!(self, Self::RefusesArchive | Self::RefusesBoth)
    }
}

/// A variable's value is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    variable: &'static str,
    problem: String,
}

impl ConfigError {
    pub(crate) fn new(variable: &'static str, problem: impl Into<String>) -> Self {
        Self { variable, problem: problem.into() }
    }
}

impl Error {
    /// How what failed may be tried again, if at all.
    pub(crate) fn retry(&self) -> Option<Retry> {
        match self {
            Self::Busy { retry, .. } => *retry,
            Self::Outdated { .. } => Some(Retry::Later),
            _ => None,
        }
    }

    /// What of the host's is why.
    pub fn finding(&self) -> Option<&HostFinding> {
        match self {
            Self::HostRefuses { finding } | Self::RowsHidden { finding } | Self::LimitsHidden { finding } => {
                Some(finding)
            }
            _ => None,
        }
    }

    /// Whether a caller hears nothing of the message: it would be of no use, and may tell what is nobody's business.
    pub(crate) fn is_internal(&self) -> bool {
        matches!(
            self,
            Self::Database { .. }
                | Self::Migration(_)
                | Self::Tls(_)
                | Self::Secret(_)
                | Self::Serialize(_)
                | Self::Decode { .. }
                | Self::Write(_)
        )
    }

    pub(crate) fn invalid(field: &'static str, wanted: impl Into<String>) -> Self {
        Self::InvalidInput { field, wanted: wanted.into() }
    }

    /// The error's stable name, for programs: in HTTP's error envelope and as a Lambda function error's type.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidInput { .. } => "invalid_input",
            Self::NotFound { .. } | Self::NoSnapshotBefore { .. } => "not_found",
            Self::HostTableMissing { .. } => "host_table_missing",
            Self::NotMigrated(_) => "not_migrated",
            Self::NotPermitted(_) => "not_permitted",
            Self::ArchiveColumnsDiffer { .. } => "archive_columns_differ",
            Self::ArchiveColumnNotConvertible { .. } => "archive_column_not_convertible",
            Self::NotRestorable { .. } => "not_restorable",
            Self::RestoreRefused { .. } => "restore_refused",
            Self::HostRefuses { .. } => "host_refuses",
            Self::RowsHidden { .. } => "rows_hidden",
            Self::LimitsHidden { .. } => "limits_hidden",
            Self::RollbackRefused { .. } => "rollback_refused",
            Self::UnderWay { .. } => "maintenance_under_way",
            Self::Paused { .. } => "maintenance_paused",
            Self::LeaseLost { .. } => "lease_lost",
            Self::SnapshotsIncomplete { .. } => "snapshots_incomplete",
            Self::PartitionDetached { .. } => "partition_detached",
            Self::RetentionTooShort { .. } => "retention_too_short",
            Self::CutoffInFuture { .. } => "cutoff_in_future",
            Self::MigrationUnderWay { .. } => "migration_under_way",
            Self::ReadOnlyDatabase => "database_read_only",
            Self::TooManyRows { .. } => "too_many_rows",
            Self::ResponseTooLarge { .. } => "response_too_large",
            Self::Unavailable { .. } => "database_unavailable",
            Self::Busy { .. } | Self::Outdated { .. } => "database_busy",
            Self::Database { .. }
            | Self::Migration(_)
            | Self::Tls(_)
            | Self::Secret(_)
            | Self::Serialize(_)
            | Self::Decode { .. }
            | Self::Write(_) => "internal_error",
            Self::UnknownEvent | Self::UnknownStep(_) => "unknown_event",
            Self::NotContinued { .. } => "not_continued",
        }
    }
}

fn refused_logs(rows: u64) -> String {
    if rows == 0 { "archived logs".into() } else { format!("{rows} archived logs") }
}

fn hooks(by: &[String]) -> String {
    if by.is_empty() { "its triggers, rules and columns".into() } else { by.join(", ") }
}

fn oldest_snapshot(oldest: Option<&(String, DateTime<Utc>)>) -> String {
    oldest.map_or("the stream has none".into(), |(month, taken_at)| {
        format!("the stream's oldest is that of {month}, taken at {}", millis(*taken_at))
    })
}

fn millis(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The message and those of all its causes, for the log.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
