use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;

use lambda_http::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK, LOCATION, RETRY_AFTER};
use lambda_http::http::{HeaderName, HeaderValue, Method, StatusCode};
use lambda_http::{Body, Request, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Endpoint, RequestContext, request};
use crate::error::{Error, Result, chain};
use crate::model::{Cursor, ListPosition, MaintenanceRun, Month, Page};

/// Names the request, in the answer and in the log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
pub(super) fn page<T: Serialize, P: ListPosition>(page: Page<T, P>, request: &Request) -> Result<Response<Body>> {
    let next_cursor = page.next_cursor.as_ref().map(Cursor::encode);
    let left_out = NonZeroU64::new(page.left_out);
    linked(&SuccessfulPage { success: true, data: page.items, next_cursor, left_out }, request)
}

/// Something with a part of a list in it.
pub(super) fn page_within<P: ListPosition>(
    data: impl Serialize,
    next_cursor: Option<&Cursor<P>>,
    request: &Request,
) -> Result<Response<Body>> {
    let next_cursor = next_cursor.map(Cursor::encode);
    linked(&SuccessfulPage { success: true, data, next_cursor, left_out: None }, request)
}

/// A page with a link to the next one: relative to the request's own URL, so it is right behind any name and prefix.
fn linked<T: Serialize>(page: &SuccessfulPage<T>, request: &Request) -> Result<Response<Body>> {
    let mut response = json(StatusCode::OK, page)?;
    if let Some(cursor) = &page.next_cursor {
        let link = format!("<?{}>; rel=\"next\"", request::query_with_cursor(request, cursor));
        response.headers_mut().insert(LINK, link.parse().expect("an encoded query is a header value"));
    }
    Ok(response)
}

/// Adds to an answer what its body does not say: which request it is of, how long it may be kept, and its tag. An answer whose tag the
/// caller knows has no body.
pub(super) fn finish(
    mut response: Response<Body>,
    endpoint: Endpoint,
    request: &Request,
    call: &RequestContext,
) -> Response<Body> {
    if !response.status().is_success() {
        return response;
    }
    let tag = entity_tag(&response).filter(|_| request.method() == Method::GET);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching(endpoint, request, call)));
    headers.insert(REQUEST_ID, header_value(&call.request_id));
    let Some(tag) = tag else { return response };
    headers.insert(ETAG, header_value(&tag));
    if request::is_known(request, &tag) {
        headers.remove(CONTENT_TYPE);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::Empty;
    }
    response
}

/// How long an answer may be kept. A past month's snapshot changes only where a run that retakes snapshots goes on after the month's end; the
/// others are to be asked for again, by their tag.
fn caching(endpoint: Endpoint, request: &Request, call: &RequestContext) -> &'static str {
    match endpoint {
        Endpoint::GetSnapshot if request::month(request).is_ok_and(|month| month < Month::containing(call.now)) => {
            "private, max-age=3600"
        }
        Endpoint::TriggerMaintenance
        | Endpoint::ListMaintenanceRuns
        | Endpoint::GetMaintenanceRun
        | Endpoint::GetVerification => "no-store",
        _ => "private, no-cache",
    }
}

/// The tag of a body: another one as soon as a byte is another.
fn entity_tag(response: &Response<Body>) -> Option<String> {
    let Body::Text(body) = response.body() else { return None };
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    Some(format!("\"{:016x}\"", hasher.finish()))
}

/// Of text that has been looked at.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
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

/// The answer to a path that there is no route for.
pub fn not_found(request_id: &str) -> Response<Body> {
    refused(StatusCode::NOT_FOUND, "There is nothing at this path: see openapi.yaml", "no_such_route", request_id)
}

/// The answer to a method that a path does not take; `allow` are those that it takes, as the header `Allow` has them.
pub fn method_not_allowed(allow: &str, request_id: &str) -> Response<Body> {
    let error = format!("This path takes {allow} only");
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, &error, "method_not_allowed", request_id);
    response.headers_mut().insert(ALLOW, header_value(allow));
    response
}

/// The answer to a body that is not said to be JSON.
pub(super) fn unsupported_media_type(request_id: &str) -> Response<Body> {
    let error = "The body must be JSON: send it with Content-Type: application/json";
    refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, error, "unsupported_media_type", request_id)
}

/// The answer to a body that is larger than API Gateway takes.
pub fn too_large(request_id: &str) -> Response<Body> {
    let error = "The body is larger than 10 MB: what the API takes fits in a line";
    refused(StatusCode::PAYLOAD_TOO_LARGE, error, "body_too_large", request_id)
}

/// The answer to a caller that is not to be here; `error` says what to do.
pub fn forbidden(error: &str, request_id: &str) -> Response<Body> {
    refused(StatusCode::FORBIDDEN, error, "forbidden", request_id)
}

/// What is refused before any endpoint hears of it.
fn refused(status: StatusCode, error: &str, code: &str, request_id: &str) -> Response<Body> {
    failure(status, &Failure { success: false, error, code, request_id, data: None })
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
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(REQUEST_ID, header_value(failure.request_id));
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
    use std::collections::HashMap;

    use lambda_http::RequestExt;
    use lambda_http::http::header::IF_NONE_MATCH;

    use super::*;
    use crate::maintenance::Deadline;

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

    /// An answer of `endpoint` to a request at `now` with this header.
    fn finished(endpoint: Endpoint, now: &str, header: Option<(HeaderName, &str)>) -> Response<Body> {
        let mut request =
            Request::default().with_path_parameters(HashMap::from([("month".to_owned(), "2026-05".to_owned())]));
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, header_value(value));
        }
        let call = RequestContext {
            request_id: "r-1".into(),
            now: now.parse().expect("a time"),
            deadline: Deadline::never(),
            continuation: None,
        };
        finish(data(StatusCode::OK, "it").expect("JSON"), endpoint, &request, &call)
    }

    #[test]
    fn an_answer_that_the_caller_knows_has_no_body() {
        let june = "2026-06-01T00:00:00Z";
        let answer = finished(Endpoint::GetSnapshot, june, None);
        let tag = answer.headers()[ETAG].to_str().expect("a text").to_owned();
        assert_eq!(
            (answer.status(), &answer.headers()[REQUEST_ID]),
            (StatusCode::OK, &HeaderValue::from_static("r-1"))
        );
        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".into()] {
            let answer = finished(Endpoint::GetSnapshot, june, Some((IF_NONE_MATCH, &known)));
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert!(matches!(answer.body(), Body::Empty));
            assert_eq!(answer.headers()[ETAG], tag);
            assert!(answer.headers().get(CONTENT_TYPE).is_none());
        }
        for other in ["\"other\"", "", tag.trim_matches('"')] {
            assert_eq!(finished(Endpoint::GetSnapshot, june, Some((IF_NONE_MATCH, other))).status(), StatusCode::OK);
        }
    }

    #[test]
    fn only_a_past_months_snapshot_may_be_kept() {
        for (endpoint, now, caching) in [
            (Endpoint::GetSnapshot, "2026-06-01T00:00:00Z", "private, max-age=3600"),
            (Endpoint::GetSnapshot, "2026-05-31T23:59:59Z", "private, no-cache"),
            (Endpoint::ListSnapshots, "2026-06-01T00:00:00Z", "private, no-cache"),
            (Endpoint::ListMaintenanceRuns, "2026-06-01T00:00:00Z", "no-store"),
        ] {
            assert_eq!(finished(endpoint, now, None).headers()[CACHE_CONTROL], caching, "{endpoint:?} {now}");
        }
        assert_eq!(error(&Error::NotFound { what: "Snapshot" }, "r-1").headers()[CACHE_CONTROL], "no-store");
    }

    #[test]
    fn an_absent_snapshot_has_the_documented_answer() {
        let answer = error(&Error::NotFound { what: "Snapshot" }, "r-1");
        assert_eq!(answer.status(), 404);
        let Body::Text(body) = answer.into_body() else { panic!("not text") };
        assert_eq!(body, r#"{"success":false,"error":"Snapshot not found","code":"not_found","requestId":"r-1"}"#);
    }
}
