use std::io::Write;

use serde::Serialize;
use snapshot_service::{LegalHold, MaintenancePause, MaintenanceRun, PageRequest, Scope, SnapshotService};

use crate::database::{self, Database};
use crate::{Result, print_json, progress};

/// Most logs that `status` names one by one; `--json` has the first hundred.
const MAX_CONFLICTS: usize = 10;

/// What `status` says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    pause: Option<MaintenancePause>,
    last_run: Option<MaintenanceRun>,
    /// Under way, or waiting to be continued: one restore at most, and one other run.
    open_runs: Vec<MaintenanceRun>,
    legal_holds: Vec<LegalHold>,
    /// Restored, and not released.
    restored_logs: u64,
}

pub(crate) async fn status(json: bool) -> Result<()> {
    let (_database, service) = open("status").await?;
    let runs = service.list_maintenance_runs(&PageRequest::new(1, None)?).await?;
    // The open one may be older than a cancelled one.
    let open_runs = service.list_open_maintenance_runs().await?;
    let last_run = open_runs.first().cloned().or_else(|| runs.items.into_iter().next());
    let status = Status {
        pause: service.find_maintenance_pause().await?,
        last_run,
        open_runs,
        legal_holds: service.list_legal_holds().await?,
        restored_logs: service.count_restored_logs().await?,
    };
    if json {
        return print_json(&status);
    }
    let mut lines = Vec::new();
    if let Some(MaintenancePause { reason, paused_by, paused_at }) = &status.pause {
        lines.push(format!("paused since {paused_at} by {paused_by}: {reason}"));
    }
    match (&status.open_runs[..], &status.last_run) {
        ([], Some(run)) => describe(run, &mut lines),
        ([], None) => lines.push("there has been no run".into()),
        (open, _) => {
            for run in open {
                describe(run, &mut lines);
            }
        }
    }
    lines.extend(status.legal_holds.iter().map(describe_hold));
    if status.restored_logs > 0 {
        lines.push(format!("{} restored logs stay until `snapshots release`", status.restored_logs));
    }
    print(&lines)
}

fn describe(run: &MaintenanceRun, lines: &mut Vec<String>) {
    let period = run.period.map(|period| format!(" for {period}")).unwrap_or_default();
    lines.push(format!("run {} by {}{period}: {}", run.id, run.trigger.as_str(), run.status.as_str()));
    if run.finished_at.is_none() {
        lines.push(progress::describe(run));
    }
    lines.push(format!(
        "snapshots of {}: {} written, {} there already, {} without amounts",
        run.snapshot_month, run.snapshots_created, run.snapshots_existing, run.unparsed_amounts
    ));
    lines.push(format!(
        "logs before {}: {} archived, {} archived already, {} ingested again, {} in conflict",
        run.cutoff, run.logs_archived, run.already_archived, run.duplicates_dropped, run.conflicts
    ));
    lines.push(format!(
        "of the host's hash chain: {} with a hash that is not theirs, {} whose parent is nowhere, {} completed by the host",
        run.hash_mismatches, run.links_missing, run.completed_by_host
    ));
    if run.target.is_some() {
        lines.push(format!("{}: {} restored", run.scope.as_str(), run.logs_restored));
    }
    lines.extend(run.conflict_details.iter().take(MAX_CONFLICTS).map(|detail| format!("stays archived: {detail}")));
    lines.extend(run.held_back.iter().map(|held| format!("held back: {} ({})", held.rows, held.message)));
    lines.extend(run.stop_reason.map(|reason| format!("last stopped: {}", reason.as_str())));
    lines.extend(run.error.as_ref().map(|error| format!("error: {error}")));
    let finished = run.finished_at.map(|time| format!(", finished {time}")).unwrap_or_default();
    lines.push(format!("started {}, updated {}{finished}, {} slices", run.started_at, run.updated_at, run.attempts));
}

/// A hold as one line.
pub(crate) fn describe_hold(hold: &LegalHold) -> String {
    let LegalHold { id, stream_id, reason, held_by, held_at, .. } = hold;
    format!("stream {stream_id} is held since {held_at} by {held_by}: {reason} (hold {id})")
}

/// Who gives the command.
pub(crate) fn user() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    user.unwrap_or_else(|| "an operator".into())
}

pub(crate) async fn pause(reason: &str) -> Result<()> {
    let (_database, service) = open("pause").await?;
    let pause = service.pause_maintenance(reason, &user()).await?;
    let pause = pause.map(|pause| format!("paused since {} by {}: {}", pause.paused_at, pause.paused_by, pause.reason));
    print(&[pause.unwrap_or_else(|| "not paused: somebody resumed it just now".into())])
}

pub(crate) async fn resume() -> Result<()> {
    let (_database, service) = open("resume").await?;
    let was_paused = service.resume_maintenance().await?.is_some();
    if !was_paused {
        return print(&["was not paused".into()]);
    }
    let open = service.list_open_maintenance_runs().await?;
    let mut line = String::from("resumed");
    if open.iter().any(|run| run.scope != Scope::Restore) {
        line.push_str("; `snapshots maintain` or the next trigger continues the open run");
    }
    if open.iter().any(|run| run.scope == Scope::Restore) {
        line.push_str("; `snapshots restore` continues the open restore");
    }
    print(&[line])
}

pub(crate) async fn cancel() -> Result<()> {
    let (_database, service) = open("cancel").await?;
    let runs = service.cancel_maintenance().await?;
    if runs.is_empty() {
        return print(&["there is no open run".into()]);
    }
    let lines: Vec<_> = runs.iter().map(|run| format!("cancelled run {} ({})", run.id, run.scope.as_str())).collect();
    print(&lines)
}

pub(crate) async fn open(command: &str) -> Result<(Database, SnapshotService)> {
    let database = database::open(command).await?;
    let service = SnapshotService::new(database.pool.clone(), database.config.settings.clone());
    Ok((database, service))
}

pub(crate) fn print(lines: &[String]) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", lines.join("\n"))?)
}
