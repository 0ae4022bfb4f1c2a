use chrono::{DateTime, Utc};
use lambda_http::http::header::{CONTENT_TYPE, IF_NONE_MATCH};
use lambda_http::http::{HeaderMap, HeaderName};
use lambda_http::{Request, RequestExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::{ArchiveFilter, Cursor, ListPosition, Month, PageRequest, StreamId};

/// What a query leaves as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Longest name that a caller may give a request.
const MAX_REQUEST_ID: usize = 128;

const WANTED_TIME: &str = "must be a time in RFC 3339, such as 2026-01-31T00:00:00Z (a + must be written %2B)";

/// The `streamId` in the path.
pub(super) fn stream_id(request: &Request) -> Result<StreamId> {
    StreamId::new(path_parameter(request, "streamId"))
}

/// The `month` in the path.
pub(super) fn month(request: &Request) -> Result<Month> {
    path_parameter(request, "month").parse()
}

/// The `runId` in the path.
pub(super) fn run_id(request: &Request) -> Result<Uuid> {
    // Not the crate's own parser, which takes other forms too.
    let text = path_parameter(request, "runId");
    let id = text.parse::<Uuid>().ok().filter(|id| id.to_string() == text.to_ascii_lowercase());
    id.ok_or_else(|| Error::invalid("runId", "must be a run's id, such as 6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e"))
}

/// What `POST .../maintenance` may say.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MaintenanceBody {
    /// Count only.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Retake this month's snapshots.
    #[serde(default)]
    pub(super) refresh: bool,
    /// Archive more rows than the limit.
    #[serde(default)]
    pub(super) force: bool,
}

/// The body of `POST .../maintenance`; none means nothing special.
pub(super) fn maintenance_body(request: &Request) -> Result<MaintenanceBody> {
    const WANTED: &str =
        "must be empty or a JSON object with no other fields than dryRun, refresh and force, each true or false";
    let body = request.body().as_ref().trim_ascii();
    if body.is_empty() {
        return Ok(MaintenanceBody::default());
    }
    // serde would also read a struct from an array.
    let parsed = body.starts_with(b"{").then(|| serde_json::from_slice(body).ok()).flatten();
    parsed.ok_or_else(|| Error::invalid("body", WANTED))
}

/// `limit` and `cursor`.
pub(super) fn page<P: ListPosition>(request: &Request, stream: Option<&StreamId>) -> Result<PageRequest<P>> {
    let limit = parameter(request, "limit", "must be a whole number from 1 to 1000", |text| text.parse().ok())?;
    let cursor = query_parameter(request, "cursor").map(|text| Cursor::decode(text, stream)).transpose()?;
    PageRequest::new(limit.unwrap_or(PageRequest::<P>::DEFAULT_LIMIT), cursor)
}

/// `from`, `to` and `eventType`.
pub(super) fn archive_filter(request: &Request) -> Result<ArchiveFilter> {
    let (from, to) = (time(request, "from")?, time(request, "to")?);
    ArchiveFilter::new(from, to, query_parameter(request, "eventType").map(str::to_owned))
}

/// `at`, which must be there.
pub(super) fn at(request: &Request) -> Result<DateTime<Utc>> {
    time(request, "at")?.ok_or_else(|| Error::invalid("at", WANTED_TIME))
}

/// The name that the caller gave the request, if it can be written to a log: `X-Request-Id`.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = header(headers, &super::response::REQUEST_ID)?;
    let is_plain = (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then_some(id)
}

/// Whether the body is said to be JSON, or there is none.
pub(super) fn is_json(request: &Request) -> bool {
    match header(request.headers(), &CONTENT_TYPE) {
        Some(media_type) => {
            let media_type = media_type.split(';').next().unwrap_or_default();
            media_type.trim().eq_ignore_ascii_case("application/json")
        }
        None => request.body().is_empty(),
    }
}

/// Whether the caller has the answer with this tag already.
pub(super) fn is_known(request: &Request, tag: &str) -> bool {
    let lines = request.headers().get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    let mut known = lines.flat_map(|line| line.split(',').map(str::trim));
    known.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// The request's query, with another cursor.
pub(super) fn query_with_cursor(request: &Request, cursor: &str) -> String {
    let parameters = request.query_string_parameters_ref();
    let others = parameters.into_iter().flat_map(|parameters| parameters.iter()).filter(|(name, _)| *name != "cursor");
    let pairs = others.chain([("cursor", cursor)]);
    let encode = |text| utf8_percent_encode(text, QUERY);
    pairs.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A path parameter, which API Gateway and the local server have decoded.
fn path_parameter<'a>(request: &'a Request, name: &str) -> &'a str {
    let parameters = request.path_parameters_ref();
    parameters.and_then(|parameters| parameters.first(name)).unwrap_or_default()
}

fn time(request: &Request, name: &'static str) -> Result<Option<DateTime<Utc>>> {
    // Not DateTime's FromStr, which takes much more than RFC 3339.
    let parse = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    parameter(request, name, WANTED_TIME, parse)
}

fn query_parameter<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.query_string_parameters_ref().and_then(|parameters| parameters.first(name))
}

fn parameter<T>(
    request: &Request,
    name: &'static str,
    wanted: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>> {
    let parse = |text: &str| parse(text).ok_or_else(|| Error::invalid(name, wanted));
    query_parameter(request, name).map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::model::SnapshotPosition;

    fn with_path(name: &str, value: &str) -> Request {
        Request::default().with_path_parameters(HashMap::from([(name.to_owned(), value.to_owned())]))
    }

    fn with_query(name: &str, value: &str) -> Request {
        Request::default().with_query_string_parameters(HashMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn a_bad_stream_id_is_refused_by_name() {
        for raw in ["", "a\0b", &"x".repeat(201)] {
            let error = stream_id(&with_path("streamId", raw)).expect_err(raw);
            assert!(error.to_string().starts_with("streamId must "), "{error}");
        }
        assert!(stream_id(&Request::default()).is_err());
        let longest = "\u{e9}".repeat(200);
        assert!(stream_id(&with_path("streamId", &longest)).is_ok(), "200 characters, not bytes");
    }

    #[test]
    fn a_limit_out_of_range_is_refused_by_name() {
        let stream = StreamId::new("42").expect("an id");
        for limit in ["0", "1001", "-1", "1.5", "", "ten", "99999999999999999999"] {
            let error = page::<SnapshotPosition>(&with_query("limit", limit), Some(&stream)).expect_err(limit);
            assert_eq!(error.to_string(), "limit must be a whole number from 1 to 1000");
        }
        for (limit, rows) in [("1", 1), ("1000", 1000)] {
            assert_eq!(
                page::<SnapshotPosition>(&with_query("limit", limit), Some(&stream)).expect(limit).limit(),
                rows
            );
        }
        assert_eq!(page::<SnapshotPosition>(&Request::default(), Some(&stream)).expect("the default").limit(), 100);
    }

    #[test]
    fn a_time_must_be_rfc_3339_and_may_have_any_offset() {
        for bad in [
            "2026-01-31",
            "yesterday",
            "1714521605",
            "2026-01-31T00:00:00",
            "2026-02-30T00:00:00Z",
            "-9999-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "2026-01-31T00:00:00 UTC",
        ] {
            let error = archive_filter(&with_query("from", bad)).expect_err(bad);
            assert!(error.to_string().starts_with("from must be a time in RFC 3339"), "{error}");
        }
        let filter = archive_filter(&with_query("to", "2026-02-01T01:00:00+02:00")).expect("with an offset");
        assert_eq!(filter.to().expect("a time").to_rfc3339(), "2026-01-31T23:00:00+00:00");
    }

    #[test]
    fn the_body_of_a_trigger_is_empty_or_an_object_of_known_fields() {
        let body = |text: &str| maintenance_body(&Request::new(text.into()));
        for empty in ["", " \n", "{}"] {
            assert_eq!(body(empty).expect(empty), MaintenanceBody::default());
        }
        assert!(body(r#"{"dryRun": true}"#).expect("known").dry_run);
        let both = body(r#"{"refresh": true, "force": true}"#).expect("known");
        assert_eq!((both.dry_run, both.refresh, both.force), (false, true, true));
        for bad in
            ["[]", "null", "true", "x", r#"{"dryrun": true}"#, r#"{"dryRun": "yes"}"#, r#"{"dryRun": null}"#, "{} {}"]
        {
            let error = body(bad).expect_err(bad);
            assert!(error.to_string().starts_with("body must be empty or a JSON object"), "{error}");
        }
    }

    #[test]
    fn a_link_keeps_the_query_but_for_the_cursor() {
        let pairs = [("limit", "2"), ("cursor", "old"), ("from", "2026-01-01T00:00:00+01:00")];
        let query: HashMap<_, _> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let request = Request::default().with_query_string_parameters(query);
        let next = query_with_cursor(&request, "new_-1");
        let mut parts: Vec<_> = next.split('&').collect();
        assert_eq!(parts.pop(), Some("cursor=new_-1"));
        parts.sort_unstable();
        assert_eq!(parts, ["from=2026%2D01".replace("%2D", "-") + "-01T00%3A00%3A00%2B01%3A00", "limit=2".into()]);
    }

    #[test]
    fn a_body_is_said_to_be_json() {
        for (media_type, body, is) in [
            (None, "", true),
            (None, "{}", false),
            (Some("application/json"), "{}", true),
            (Some("Application/JSON; charset=utf-8"), "{}", true),
            (Some("application/x-www-form-urlencoded"), "{}", false),
            (Some("text/plain"), "", false),
        ] {
            let mut request = Request::new(body.into());
            if let Some(media_type) = media_type {
                request.headers_mut().insert(CONTENT_TYPE, media_type.parse().expect("a header value"));
            }
            assert_eq!(is_json(&request), is, "{media_type:?} {body}");
        }
    }

    #[test]
    fn a_request_may_be_given_a_plain_name() {
        let longest = "x".repeat(MAX_REQUEST_ID);
        for (name, is) in
            [("r-1", true), (longest.as_str(), true), ("", false), ("a b", false), (&format!("{longest}x"), false)]
        {
            let headers =
                HeaderMap::from_iter([(super::super::response::REQUEST_ID, name.parse().expect("a header value"))]);
            assert_eq!(request_id(&headers), is.then_some(name));
        }
    }

    #[test]
    fn a_run_id_has_one_form() {
        let id = "6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e";
        assert_eq!(run_id(&with_path("runId", id)).expect(id).to_string(), id);
        for bad in ["", "1", "2026-05", "6c1a9be4ae0649fc9c4f1a5e6f0d8a5e", "{6c1a9be4-ae06-49fc-9c4f-1a5e6f0d8a5e}"] {
            let error = run_id(&with_path("runId", bad)).expect_err(bad);
            assert!(error.to_string().starts_with("runId must be a run's id"), "{error}");
        }
    }
}
