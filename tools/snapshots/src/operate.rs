//! What operators ask for: how maintenance fares, what it has done, and that it stops or goes on.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use snapshot_service::{
    ArchivedMonth, BacklogReport, LegalHold, MaintenancePause, MaintenanceRun, PageRequest, RunStatus, Scope,
    SnapshotService, next_scheduled_run,
};
use uuid::Uuid;

use crate::database::{self, Database};
use crate::maintain::describe_held_back;
use crate::output::{Output, count, or_dash, table, time};
use crate::reading::{PageOptions, print_page};
use crate::{Result, progress, stop_on_signal};

/// Most logs, and most findings, that are named one by one; as JSON there are more.
const MAX_NAMED: usize = 10;
/// How often `status --watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct StatusOptions {
    /// Look again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// What `status` says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    pause: Option<MaintenancePause>,
    last_run: Option<MaintenanceRun>,
    /// Under way, or waiting to be continued: one restore at most, and one other run.
    open_runs: Vec<MaintenanceRun>,
    /// When the schedule runs maintenance next.
    next_run: DateTime<Utc>,
    backlog: BacklogReport,
    legal_holds: Vec<LegalHold>,
    /// Restored, and not released.
    restored_logs: u64,
}

impl Status {
    async fn load(service: &SnapshotService) -> Result<Self> {
        let runs = service.list_maintenance_runs(&PageRequest::new(1, None)?).await?;
        // The open one may be older than a cancelled one.
        let open_runs = service.list_open_maintenance_runs().await?;
        let last_run = open_runs.first().cloned().or_else(|| runs.items.into_iter().next());
        let now = Utc::now();
        Ok(Self {
            pause: service.find_maintenance_pause().await?,
            last_run,
            open_runs,
            next_run: next_scheduled_run(now),
            backlog: service.get_backlog(now).await?,
            legal_holds: service.list_legal_holds().await?,
            restored_logs: service.count_restored_logs().await?,
        })
    }

    fn describe(&self) -> String {
        let mut lines = Vec::new();
        if let Some(pause) = &self.pause {
            lines.push(format!("{}; `snapshots resume` ends the pause", describe_pause(pause)));
        }
        match (&self.open_runs[..], &self.last_run) {
            ([], Some(run)) => lines.push(summary(run)),
            ([], None) => lines.push("there has been no run: `snapshots maintain` does the first".into()),
            (open, _) => lines.extend(open.iter().map(summary)),
        }
        lines.extend(self.backlog.backlog_rows.map(|rows| match rows {
            0 => "no log is due".into(),
            rows => format!("about {} logs are due, by the planner's estimate", count(rows)),
        }));
        lines.push(format!(
            "the schedule, where one is deployed or served, runs maintenance next at {}",
            time(self.next_run)
        ));
        lines.extend(self.legal_holds.iter().map(describe_hold));
        if self.restored_logs > 0 {
            lines.push(format!("{} restored logs stay until `snapshots release`", self.restored_logs));
        }
        lines.join("\n")
    }
}

pub(crate) async fn status(options: StatusOptions, output: Output) -> Result<()> {
    if options.watch && output.is_json() {
        return Err("--watch is for people: ask for JSON again and again instead".into());
    }
    let (_database, service) = open("status").await?;
    if !options.watch {
        let status = Status::load(&service).await?;
        return output.print(&status, || status.describe());
    }
    let stop = stop_on_signal()?;
    while !stop.is_cancelled() {
        let status = Status::load(&service).await?;
        if std::io::stdout().is_terminal() {
            // The screen is cleared, and the cursor goes to its beginning.
            write!(std::io::stdout(), "\x1b[2J\x1b[H")?;
        }
        output.print(&status, || format!("{}\n\n{}", time(Utc::now()), status.describe()))?;
        tokio::select! {
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

/// The runs, newest first.
pub(crate) async fn runs(options: PageOptions, output: Output) -> Result<()> {
    let page = options.request(None)?;
    let (_database, service) = open("runs").await?;
    let page = service.list_maintenance_runs(&page).await?;
    print_page(output, page, "there has been no run", |runs| {
        let rows = runs.iter().map(|run| {
            let rows = if run.target.is_some() { run.logs_restored } else { run.logs_archived };
            let (scope, status) = (run.scope.as_str(), run.status.as_str());
            [
                time(run.started_at),
                scope.into(),
                status.into(),
                count(run.snapshots_created),
                count(rows),
                run.id.to_string(),
            ]
        });
        table(["STARTED", "SCOPE", "STATUS", "SNAPSHOTS", "LOGS", "ID"], rows)
    })
}

/// One run.
pub(crate) async fn run(id: Uuid, output: Output) -> Result<()> {
    let (_database, service) = open("run").await?;
    let Some(run) = service.find_maintenance_run(id).await? else {
        return Err(format!("there is no run {id}: `snapshots runs` has those that there are").into());
    };
    output.print(&run, || summary(&run))
}

/// The months of the archive.
pub(crate) async fn months(output: Output) -> Result<()> {
    let (_database, service) = open("months").await?;
    let months = service.list_archived_months().await?;
    output.print(&months, || {
        if months.is_empty() {
            return "nothing is archived: `snapshots maintain` archives what is due".into();
        }
        let rows = months.iter().map(|ArchivedMonth { month, rows, seals, sealed_at, digest }| {
            [month.to_string(), count(*rows), count(*seals), or_dash(sealed_at.map(time)), digest.clone()]
        });
        table(["MONTH", "LOGS", "SEALS", "LAST SEALED", "END OF THE CHAIN"], rows)
    })
}

/// The legal holds in force.
pub(crate) async fn holds(output: Output) -> Result<()> {
    let (_database, service) = open("holds").await?;
    let holds = service.list_legal_holds().await?;
    output.print(&holds, || {
        if holds.is_empty() {
            return "no stream is under legal hold".into();
        }
        let rows = holds.iter().map(|hold| {
            let LegalHold { id, stream_id, reason, held_by, held_at, .. } = hold;
            [stream_id.clone(), time(*held_at), held_by.clone(), reason.clone(), id.to_string()]
        });
        table(["STREAM", "SINCE", "BY", "REASON", "ID"], rows)
    })
}

/// A run in lines that a person reads: what it is, what it has done, what stays and why, and what to do next.
pub(crate) fn summary(run: &MaintenanceRun) -> String {
    let mut lines = Vec::new();
    let period = run.period.map(|period| format!(" for {period}")).unwrap_or_default();
    lines.push(format!(
        "run {}, {} by {}{period}: {}",
        run.id,
        run.scope.as_str(),
        run.trigger.as_str(),
        run.status.as_str()
    ));
    if run.finished_at.is_none() {
        lines.push(format!("  {}", progress::describe(run)));
    }
    if run.target.is_some() {
        lines.push(format!("  {} logs moved back to \"EventLog\"", count(run.logs_restored)));
    } else {
        describe_work(run, &mut lines);
    }
    let mut name = |all: Vec<String>| {
        let more = all.len().saturating_sub(MAX_NAMED);
        lines.extend(all.into_iter().take(MAX_NAMED).map(|line| format!("  {line}")));
        if more > 0 {
            lines.push(format!("  and {more} more; --output json names them"));
        }
    };
    name(run.conflict_details.iter().map(|detail| format!("stays archived: {detail}")).collect());
    name(run.held_back.iter().map(|held| describe_held_back(held, "stay")).collect());
    name(run.findings.iter().map(|finding| format!("{}: {finding}", finding.code)).collect());
    lines.extend(run.stop_reason.map(|reason| format!("  last stopped: {}", reason.as_str())));
    lines.extend(run.error.as_ref().map(|error| format!("  error: {error}")));
    let finished = run.finished_at.map(|at| format!(", finished {}", time(at))).unwrap_or_default();
    let slices = if run.attempts == 1 { "1 slice".into() } else { format!("{} slices", run.attempts) };
    let (started, updated) = (time(run.started_at), time(run.updated_at));
    lines.push(format!("  started {started}, updated {updated}{finished}, {slices}"));
    lines.extend(next_step(run).map(|step| format!("  {step}")));
    lines.join("\n")
}

fn describe_work(run: &MaintenanceRun, lines: &mut Vec<String>) {
    if run.scope != Scope::Archive {
        let unparsed = match run.unparsed_amounts {
            0 => String::new(),
            streams => format!(", {} without amounts", count(streams)),
        };
        lines.push(format!(
            "  snapshots of {}: {} taken, {} there already{unparsed}",
            run.snapshot_month,
            count(run.snapshots_created),
            count(run.snapshots_existing)
        ));
    }
    if run.scope != Scope::Snapshots {
        lines.push(format!("  logs from before {}: {} archived", time(run.cutoff), count(run.logs_archived)));
    }
    for (logs, what) in [
        (run.already_archived, "were archived already, and are dropped"),
        (run.duplicates_dropped, "had been ingested again, and are dropped"),
        (run.conflicts, "are archived with other contents, and stay"),
        (run.hash_mismatches, "have a hash that is not that of their contents; `snapshots verify` names them"),
        (run.links_missing, "have a parent that is nowhere; `snapshots verify` names them"),
        (run.completed_by_host, "were completed by the host after they were hashed"),
    ] {
        if logs > 0 {
            lines.push(format!("  {} of the logs {what}", count(logs)));
        }
    }
}

/// What whoever reads of a run may do next, if anything.
fn next_step(run: &MaintenanceRun) -> Option<String> {
    let is_over = run.finished_at.is_some() || run.status == RunStatus::Running;
    match run.scope {
        _ if is_over => None,
        Scope::Restore => {
            Some("`snapshots restore` with the same options continues it; `snapshots cancel` ends it".into())
        }
        Scope::Rollback => Some("`snapshots rollback` continues it; `snapshots cancel` ends it".into()),
        _ => Some("`snapshots maintain` or the next trigger continues it; `snapshots cancel` ends it".into()),
    }
}

fn describe_pause(pause: &MaintenancePause) -> String {
    format!("paused since {} by {}: {}", time(pause.paused_at), pause.paused_by, pause.reason)
}

/// A hold as one line.
pub(crate) fn describe_hold(hold: &LegalHold) -> String {
    let LegalHold { id, stream_id, reason, held_by, held_at, .. } = hold;
    format!("stream {stream_id} is held since {} by {held_by}: {reason} (hold {id})", time(*held_at))
}

/// Who gives the command.
pub(crate) fn user() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    user.unwrap_or_else(|| "an operator".into())
}

pub(crate) async fn pause(reason: &str, output: Output) -> Result<()> {
    let (_database, service) = open("pause").await?;
    let pause = service.pause_maintenance(reason, &user()).await?;
    output.print(&pause, || {
        pause.as_ref().map_or_else(|| "not paused: somebody resumed it just now".into(), describe_pause)
    })
}

/// What `resume` has ended, and what waits.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resumed {
    /// The pause; none when there was none.
    pause: Option<MaintenancePause>,
    open_runs: Vec<MaintenanceRun>,
}

pub(crate) async fn resume(output: Output) -> Result<()> {
    let (_database, service) = open("resume").await?;
    let pause = service.resume_maintenance().await?;
    let resumed = Resumed { pause, open_runs: service.list_open_maintenance_runs().await? };
    output.print(&resumed, || {
        if resumed.pause.is_none() {
            return "was not paused".into();
        }
        let mut line = String::from("resumed");
        if resumed.open_runs.iter().any(|run| run.scope != Scope::Restore) {
            line.push_str("; `snapshots maintain` or the next trigger continues the open run");
        }
        if resumed.open_runs.iter().any(|run| run.scope == Scope::Restore) {
            line.push_str("; `snapshots restore` continues the open restore");
        }
        line
    })
}

pub(crate) async fn cancel(output: Output) -> Result<()> {
    let (_database, service) = open("cancel").await?;
    let runs = service.cancel_maintenance().await?;
    output.print(&runs, || {
        if runs.is_empty() {
            return "there is no open run".into();
        }
        let lines: Vec<_> =
            runs.iter().map(|run| format!("cancelled run {} ({})", run.id, run.scope.as_str())).collect();
        lines.join("\n")
    })
}

pub(crate) async fn open(command: &str) -> Result<(Database, SnapshotService)> {
    let database = database::open(command).await?;
    let service = SnapshotService::new(database.pool.clone(), database.config.settings.clone());
    Ok((database, service))
}
