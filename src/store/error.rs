use tokio_postgres::error::{DbError, SqlState};

use crate::error::{Error, Fault, HostFinding, Retry};

impl From<tokio_postgres::Error> for Error {
    /// What PostgreSQL or the connection to it said, in the domain's terms.
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else {
            let io = std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
            return if error.is_closed() || io { lost(error) } else { refused(Fault::Other, error) };
        };
        match code {
            &SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE => busy(Retry::Smaller, error),
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => busy(Retry::Later, error),
            &SqlState::UNDEFINED_TABLE => match missing_host_table(&error) {
                Some(table) => Self::HostTableMissing { table },
                None => Self::NotMigrated(error.into()),
            },
            // An operator is none of ours.
            &SqlState::UNDEFINED_FUNCTION if is_raised_by(&error, "op_error") => refused(Fault::Columns, error),
            &SqlState::UNDEFINED_FUNCTION => Self::NotMigrated(error.into()),
            &SqlState::INSUFFICIENT_PRIVILEGE => Self::NotPermitted(error.into()),
            // Raised by stream_identity_look_up.
            code if code.code() == "SR001" => HostFinding::hidden_own().into(),
            &SqlState::READ_ONLY_SQL_TRANSACTION => Self::ReadOnlyDatabase,
            &SqlState::ADMIN_SHUTDOWN
            | &SqlState::CRASH_SHUTDOWN
            | &SqlState::CANNOT_CONNECT_NOW
            | &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
            | &SqlState::IDLE_SESSION_TIMEOUT => lost(error),
            // 08 connection exceptions, 53 insufficient resources.
            code if code.code().starts_with("08") || code.code().starts_with("53") => lost(error),
            code => refused(fault(code), error),
        }
    }
}

fn lost(error: tokio_postgres::Error) -> Error {
    Error::Unavailable { is_lost: true, source: error.into() }
}

fn busy(retry: Retry, error: tokio_postgres::Error) -> Error {
    Error::Busy { retry: Some(retry), source: error.into() }
}

fn refused(fault: Fault, source: tokio_postgres::Error) -> Error {
    Error::Database { fault, source }
}

fn fault(code: &SqlState) -> Fault {
    match code.code().get(..2) {
        // Cardinality violations, data exceptions, integrity violations, functions, the program's limits, foreign data, errors that a
        // function raised, internal errors.
        Some("21" | "22" | "23" | "38" | "39" | "54" | "HV" | "P0" | "XX") => Fault::Rows,
        Some("42") => Fault::Columns,
        _ => Fault::Other,
    }
}

/// Whether a function raised the error whose name does not begin with `own`.
pub(super) fn is_raised_by_others(error: &tokio_postgres::Error, own: &str) -> bool {
    // The innermost function comes first.
    let place = error.as_db_error().and_then(DbError::where_).and_then(|place| place.lines().next());
    place.is_some_and(|line| line.contains("function ") && !line.contains(own))
}

fn missing_host_table(error: &tokio_postgres::Error) -> Option<&'static str> {
    let message = error.as_db_error()?.message();
    ["Stream", "EventLog"].into_iter().find(|table| message.contains(&format!("\"{table}\"")))
}

/// Whether this function of PostgreSQL's raised the error.
fn is_raised_by(error: &tokio_postgres::Error, routine: &str) -> bool {
    error.as_db_error().and_then(tokio_postgres::error::DbError::routine) == Some(routine)
}

impl From<deadpool::managed::PoolError<Error>> for Error {
    fn from(error: deadpool::managed::PoolError<Error>) -> Self {
        Self::Unavailable { is_lost: false, source: error.into() }
    }
}
