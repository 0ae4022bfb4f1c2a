use std::num::NonZeroU64;

use lambda_http::http::StatusCode;
use lambda_http::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use lambda_http::{Body, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result, chain};
use crate::model::{Cursor, ListPosition, MaintenanceRun, Page};

/// How long a caller should leave a database alone that is down or busy.
const RETRY_AFTER_SECONDS: &str = "5";

/// `{"success": true, "data": ...}`.
#[derive(Serialize)]
struct Success<T> {
    success: bool,
    data: T,
}

/// `{"success": true, "data": ..., "nextCursor": "..." or null}`, and `"leftOut"` where rows are.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SuccessfulPage<T> {
    success: bool,
    data: T,
    next_cursor: Option<String>,
    /// Rows that are on no page; not there when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<NonZeroU64>,
}

/// `{"success": false, "error": "...", "code": "...", "requestId": "..."}`, and `"data"` with the run that is in the way.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    success: bool,
    error: &'a str,
    code: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

/// One thing.
pub(super) fn data(status: StatusCode, data: impl Serialize) -> Result<Response<Body>> {
    json(status, &Success { success: true, data })
}

/// A run that goes on, with the URL that tells how far it is.
pub(super) fn accepted(run: &MaintenanceRun) -> Result<Response<Body>> {
    let mut response = data(StatusCode::ACCEPTED, run)?;
    let url = format!("/api/v1/snapshots/maintenance/{}", run.id);
    response.headers_mut().insert(LOCATION, url.parse().expect("a path of plain characters is a header value"));
    Ok(response)
}

/// A part of a list.
pub(super) fn page<T: Serialize, P: ListPosition>(page: Page<T, P>) -> Result<Response<Body>> {
    let next_cursor = page.next_cursor.as_ref().map(Cursor::encode);
    let left_out = NonZeroU64::new(page.left_out);
    json(StatusCode::OK, &SuccessfulPage { success: true, data: page.items, next_cursor, left_out })
}

/// Something with a part of a list in it.
pub(super) fn page_within<P: ListPosition>(
    data: impl Serialize,
    next_cursor: Option<&Cursor<P>>,
) -> Result<Response<Body>> {
    let next_cursor = next_cursor.map(Cursor::encode);
    json(StatusCode::OK, &SuccessfulPage { success: true, data, next_cursor, left_out: None })
}

/// What the caller sees of `error`; the log sees its causes too.
pub fn error(error: &Error, request_id: &str) -> Response<Body> {
    let status = status(error);
    if status.is_server_error() {
        tracing::error!(request_id, code = error.code(), error = chain(error), "request failed");
    }
    let message = if error.is_internal() { "internal error".into() } else { error.to_string() };
    let data = if let Error::UnderWay { progress, .. } = error { Some(&**progress) } else { None };
    failure(status, &Failure { success: false, error: &message, code: error.code(), request_id, data })
}

/// The answer to a path or method that there is no route for.
pub fn not_found(request_id: &str) -> Response<Body> {
    let error = "There is nothing at this path for this method";
    failure(StatusCode::NOT_FOUND, &Failure { success: false, error, code: "no_such_route", request_id, data: None })
}

fn status(error: &Error) -> StatusCode {
    match error {
        Error::InvalidInput { .. } => StatusCode::BAD_REQUEST,
        Error::NotFound { .. } | Error::NoSnapshotBefore { .. } => StatusCode::NOT_FOUND,
        Error::ArchiveColumnsDiffer { .. }
        | Error::NotRestorable { .. }
        | Error::RestoreRefused { .. }
        | Error::HostRefuses { .. }
        | Error::LimitsHidden { .. }
        | Error::RollbackRefused { .. }
        | Error::UnderWay { .. }
        | Error::Paused { .. }
        | Error::LeaseLost { .. }
        | Error::SnapshotsIncomplete { .. }
        | Error::PartitionDetached { .. }
        | Error::RetentionTooShort { .. }
        | Error::CutoffInFuture { .. }
        | Error::TooManyRows { .. } => StatusCode::CONFLICT,
        Error::Unavailable { .. }
        | Error::Busy { .. }
        | Error::Outdated { .. }
        | Error::NotMigrated(_)
        | Error::NotContinued { .. }
        // As a privilege that the login lacks.
        | Error::RowsHidden { .. }
        | Error::NotPermitted(_)
        | Error::MigrationUnderWay { .. }
        | Error::ReadOnlyDatabase
        | Error::HostTableMissing { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Error::ArchiveColumnNotConvertible { .. }
        | Error::ResponseTooLarge { .. }
        | Error::Database { .. }
        | Error::Migration(_)
        | Error::Tls(_)
        | Error::Secret(_)
        | Error::Serialize(_)
        | Error::Decode { .. }
        | Error::Write(_)
        | Error::UnknownEvent
        | Error::UnknownStep(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn failure(status: StatusCode, failure: &Failure<'_>) -> Response<Body> {
    let mut response = json(status, failure).expect("strings and a run are always JSON");
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS.parse().expect("digits are a header value"));
    }
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Result<Response<Body>> {
    let body = serde_json::to_string(body).map_err(Error::Serialize)?;
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json").body(Body::Text(body));
    Ok(response.expect("a status and a constant header make a response"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_never_sees_what_the_database_said() {
        let cause = || "relation \"secret\" does not exist".into();
        for failure in [
            Error::Unavailable { is_lost: false, source: cause() },
            Error::Tls(cause()),
            Error::Busy { retry: None, source: cause() },
            Error::Secret(cause()),
        ] {
            let Body::Text(body) = error(&failure, "r-1").into_body() else { panic!("not text") };
            assert!(!body.contains("secret\\\""), "{body}");
            assert!(body.contains(r#""requestId":"r-1""#), "{body}");
        }
    }

    #[test]
    fn an_absent_snapshot_has_the_documented_answer() {
        let answer = error(&Error::NotFound { what: "Snapshot" }, "r-1");
        assert_eq!(answer.status(), 404);
        let Body::Text(body) = answer.into_body() else { panic!("not text") };
        assert_eq!(body, r#"{"success":false,"error":"Snapshot not found","code":"not_found","requestId":"r-1"}"#);
    }
}
