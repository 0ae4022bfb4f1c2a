//! What can go wrong, in the domain's terms.

use std::error::Error as StdError;

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
    /// A table of the host is missing.
    #[error("the host's table \"{table}\" is missing: run the host's own migrations first")]
    HostTableMissing {
        /// The table's name.
        table: &'static str,
    },
    /// The service's own tables are missing or of an older version.
    #[error("the database lacks the service's tables: run `snapshots migrate`")]
    NotMigrated(#[source] Source),
    /// `EventLog` has columns that the archive has not, or has with another type (domain rule 5).
    #[error("\"StreamArchive\" does not match the columns of \"EventLog\": {}; run `snapshots migrate`", columns.join(", "))]
    ArchiveColumnsDiffer {
        /// Each column with what is wrong about it.
        columns: Vec<String>,
    },
    /// A column of `EventLog` changed its type to one that would alter archived values.
    #[error(
        "archived values of \"{column}\" would change as {wanted}: convert the column of \"StreamArchive\" by hand"
    )]
    ArchiveColumnNotConvertible {
        /// The column's name.
        column: String,
        /// The type it has in `EventLog`.
        wanted: String,
        /// What the database said, when it cannot convert at all.
        source: Option<tokio_postgres::Error>,
    },
    /// One row alone weighs more than a response may.
    #[error("{item} is larger than a response may be (6 MB): read it from the database")]
    ResponseTooLarge {
        /// Which row.
        item: String,
    },
    /// The database cannot be reached, or closed the connection.
    #[error("the database is unavailable")]
    Unavailable(#[source] Source),
    /// A statement took longer than it may, waited too long for a lock, or lost against another transaction.
    #[error("the database is busy")]
    Busy(#[source] Source),
    /// The database refused a statement for a reason that only a bug or a foreign change explains.
    #[error("the database refused a statement")]
    Database(#[source] tokio_postgres::Error),
    /// The migrations did not all run.
    #[error("a migration failed")]
    Migration(#[source] refinery::Error),
    /// TLS could not be set up from the configuration.
    #[error("TLS cannot be set up")]
    Tls(#[source] Source),
    /// The database's secret could not be read.
    #[error("the database's secret cannot be read")]
    Secret(#[source] Source),
    /// A value has no JSON form.
    #[error("a row cannot be written as JSON")]
    Serialize(#[source] serde_json::Error),
    /// A scheduled function was given something that is no schedule's event.
    #[error("the event must be {{}} or come from a schedule, with \"source\" aws.scheduler or aws.events")]
    UnknownEvent,
}

/// The cause of an error, of whatever type.
pub(crate) type Source = Box<dyn StdError + Send + Sync>;

impl Error {
    pub(crate) fn invalid(field: &'static str, wanted: impl Into<String>) -> Self {
        Self::InvalidInput { field, wanted: wanted.into() }
    }

    /// The error's stable name, for programs: in HTTP's error envelope and as a Lambda function error's type.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidInput { .. } => "invalid_input",
            Self::NotFound { .. } => "not_found",
            Self::HostTableMissing { .. } => "host_table_missing",
            Self::NotMigrated(_) => "not_migrated",
            Self::ArchiveColumnsDiffer { .. } => "archive_columns_differ",
            Self::ArchiveColumnNotConvertible { .. } => "archive_column_not_convertible",
            Self::ResponseTooLarge { .. } => "response_too_large",
            Self::Unavailable(_) => "database_unavailable",
            Self::Busy(_) => "database_busy",
            Self::Database(_) | Self::Migration(_) | Self::Tls(_) | Self::Secret(_) | Self::Serialize(_) => {
                "internal_error"
            }
            Self::UnknownEvent => "unknown_event",
        }
    }
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

/// Logs an error that a program cannot start with, as one line, and ends the process with status 78, which sysexits.h
/// calls EX_CONFIG.
pub fn exit(error: &dyn StdError) -> ! {
    tracing::error!("cannot start: {}", chain(error));
    std::process::exit(78)
}
