//! What the tests share.

pub(crate) mod certificates;
pub(crate) mod database;
pub(crate) mod lambda;
pub(crate) mod moto;
pub(crate) mod step_functions;

use chrono::{DateTime, Utc};
use serde_json::Value;
use serde_json::value::RawValue;
use snapshot_service::{ArchiveFilter, LoggedEvent, PageRequest, Scope, SnapshotService, StreamId};

pub(crate) use database::TestDatabase;

/// Whether a run, as `Error::UnderWay` tells of it, is of `scope`.
pub(crate) fn is_of(progress: &RawValue, scope: Scope) -> bool {
    let run: Value = serde_json::from_str(progress.get()).unwrap();
    run["scope"] == scope.as_str()
}

/// An instant, from RFC 3339.
pub(crate) fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A stream id that is well formed.
pub(crate) fn stream(id: &str) -> StreamId {
    StreamId::new(id).unwrap()
}

/// All archived logs of a stream, read in pages of `limit`.
pub(crate) async fn read_archive(
    service: &SnapshotService,
    id: &str,
    filter: &ArchiveFilter,
    limit: u16,
) -> Vec<LoggedEvent> {
    let mut request = PageRequest::new(limit, None).unwrap();
    let mut logs = Vec::new();
    loop {
        let page = service.get_archived_logs(&stream(id), filter, &request).await.unwrap();
        assert!(page.items.len() <= usize::from(limit));
        logs.extend(page.items);
        let Some(cursor) = page.next_cursor else { return logs };
        request = PageRequest::new(limit, Some(cursor)).unwrap();
    }
}
