use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};

use super::request::MaintenanceBody;
use super::{RequestContext, request, response};
use crate::error::{Error, Result};
use crate::model::{MAX_PAGE_BYTES, MaintenanceRequest, Month, Scope, StepRequest, StopReason, Trigger, wire_bytes};
use crate::service::SnapshotService;

/// `GET /api/v1/snapshots/{streamId}`
pub(super) async fn list_snapshots(service: &SnapshotService, request: &Request) -> Result<Response<Body>> {
    let stream = request::stream_id(request)?;
    let page = request::page(request, Some(&stream))?;
    response::page(service.get_stream_snapshots(&stream, &page).await?, request)
}

/// `GET /api/v1/snapshots/{streamId}/{month}`
pub(super) async fn get_snapshot(service: &SnapshotService, request: &Request) -> Result<Response<Body>> {
    let stream = request::stream_id(request)?;
    let month = request::month(request)?;
    let snapshot = service.get_snapshot(&stream, month).await?.ok_or(Error::NotFound { what: "Snapshot" })?;
    if wire_bytes(&snapshot)? > MAX_PAGE_BYTES {
        return Err(Error::ResponseTooLarge { item: format!("snapshot {}", snapshot.id) });
    }
    response::data(StatusCode::OK, snapshot)
}

/// `GET /api/v1/snapshots/{streamId}/archive`
pub(super) async fn list_archived_logs(service: &SnapshotService, request: &Request) -> Result<Response<Body>> {
    let stream = request::stream_id(request)?;
    let page = request::page(request, Some(&stream))?;
    let filter = request::archive_filter(request)?;
    response::page(service.get_archived_logs(&stream, &filter, &page).await?, request)
}

/// `GET /api/v1/snapshots/{streamId}/events`
pub(super) async fn list_stream_events(service: &SnapshotService, request: &Request) -> Result<Response<Body>> {
    let stream = request::stream_id(request)?;
    let page = request::page(request, Some(&stream))?;
    let filter = request::archive_filter(request)?;
    response::page(service.list_stream_events(&stream, &filter, &page).await?, request)
}

/// `GET /api/v1/snapshots/{streamId}/state`
pub(super) async fn get_stream_state(service: &SnapshotService, request: &Request) -> Result<Response<Body>> {
    let stream = request::stream_id(request)?;
    let at = request::at(request)?;
    let page = request::page(request, Some(&stream))?;
    let state = service.get_stream_state(&stream, at, &page).await?;
    if wire_bytes(&state.snapshot)? > MAX_PAGE_BYTES {
        return Err(Error::ResponseTooLarge { item: format!("snapshot {}", state.snapshot.id) });
    }
    response::page_within(&state, state.next_cursor.as_ref(), request)
}

/// `POST /api/v1/snapshots/maintenance`
pub(super) async fn trigger_maintenance(
    service: &SnapshotService,
    request: &Request,
    call: &RequestContext,
) -> Result<Response<Body>> {
    let MaintenanceBody { dry_run, refresh, force } = request::maintenance_body(request)?;
    if dry_run {
        return response::data(StatusCode::OK, service.dry_run(refresh, call.now, &call.deadline).await?);
    }
    let request = MaintenanceRequest { trigger: Trigger::Api, refresh, force };
    let run = service.run_maintenance(request, call.now, &call.deadline).await?;
    if run.complete {
        return response::data(StatusCode::OK, run);
    }
    // What an operator stopped is the operator's to continue.
    if run.stop_reason == Some(StopReason::Deadline)
        && let Some(continuation) = &call.continuation
    {
        // An older run, which goes first, is not all that is asked for.
        let remainder = if run.does(Scope::Maintenance, &request, Month::containing(call.now)) {
            StepRequest::continuing(run.id)
        } else {
            StepRequest { refresh, force, ..StepRequest::default() }
        };
        continuation.start(&run, remainder).await?;
    }
    response::accepted(&run)
}

/// `GET /api/v1/snapshots/maintenance`
pub(super) async fn list_maintenance_runs(service: &SnapshotService, request: &Request) -> Result<Response<Body>> {
    response::page(service.list_maintenance_runs(&request::page(request, None)?).await?, request)
}

/// `GET /api/v1/snapshots/maintenance/{runId}`
pub(super) async fn get_maintenance_run(service: &SnapshotService, request: &Request) -> Result<Response<Body>> {
    let run = service.find_maintenance_run(request::run_id(request)?).await?;
    response::data(StatusCode::OK, run.ok_or(Error::NotFound { what: "Maintenance run" })?)
}

/// `GET /api/v1/snapshots/maintenance/verification`
pub(super) async fn get_verification(service: &SnapshotService) -> Result<Response<Body>> {
    let verification = service.find_last_verification().await?;
    response::data(StatusCode::OK, verification.ok_or(Error::NotFound { what: "Verification" })?)
}
