use std::time::Duration;

use tokio_postgres::IsolationLevel;

use super::{Deadline, Engine, Plan, Settings};
use crate::database::Pool;
use crate::error::{Error, Result};
use crate::model::{DryRunReport, RestoreDryRunReport, RestoreTarget};
use crate::store::archive_columns::MirroredColumns;
use crate::store::event_log::{self, Due};
use crate::store::remainder::{self, DueRows, Rules};
use crate::store::session::Limits;
use crate::store::{former, host, maintenance_runs, restore, session, snapshots};

/// Rows per second to expect before any run has been measured: what a small machine does.
const CAUTIOUS_RATE: f64 = 20_000.0;

/// Counts what a run would do that started now.
pub(crate) async fn dry_run(engine: Engine<'_>, refresh: bool) -> Result<DryRunReport> {
    until(engine.deadline, count(engine, refresh)).await
}

/// Counts what a restore would do.
pub(crate) async fn dry_run_restore(
    pool: &Pool,
    settings: &Settings,
    target: RestoreTarget,
    deadline: &Deadline,
) -> Result<RestoreDryRunReport> {
    until(deadline, count_restorable(pool, settings, target)).await
}

async fn until<T>(deadline: &Deadline, count: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        report = count => report,
        // The connection goes with the counting, and with it the statement.
        () = deadline.come() => Err(Error::Busy { retry: None, source: "counting takes longer than it may".into() }),
    }
}

/// Counts in one read-only transaction, as below.
async fn count_restorable(pool: &Pool, settings: &Settings, target: RestoreTarget) -> Result<RestoreDryRunReport> {
    let mut client = pool.get().await?;
    let limits = Limits { statement: Duration::ZERO, lock: settings.lock_timeout };
    let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
    let mut months = Vec::new();
    for month in restore::list_months(&transaction, &target).await? {
        let counted = restore::count_month(&transaction, &target, month).await?;
        if counted.rows + counted.on_hold + counted.in_the_way > 0 {
            months.push(counted);
        }
    }
    transaction.commit().await?;
    Ok(RestoreDryRunReport {
        dry_run: true,
        target,
        logs_to_restore: months.iter().map(|month| month.rows).sum(),
        on_hold: months.iter().map(|month| month.on_hold).sum(),
        in_the_way: months.iter().map(|month| month.in_the_way).sum(),
        months,
    })
}

/// Counts in one read-only transaction: all numbers are of the same instant.
async fn count(engine: Engine<'_>, refresh: bool) -> Result<DryRunReport> {
    let settings = engine.settings;
    let plan = Plan::starting_at(engine.called_at, settings.retention_months);
    let mut client = engine.connect().await?;
    // As long as it takes: whoever waits has a deadline.
    let limits = Limits { statement: Duration::ZERO, lock: settings.lock_timeout };
    let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
    let since = refresh.then(|| plan.now.naive_utc());
    let streams = snapshots::count_streams(&transaction, plan.snapshot_month, since).await?;
    // Whoever does not see all logs does not count them.
    host::refuse_hidden_logs(&transaction, true).await?;
    let columns = MirroredColumns::load(&transaction).await?;
    let cutoff = plan.cutoff.naive_utc();
    let has_hashes = event_log::has_due_hashes(&transaction, &columns, cutoff).await?;
    let facts = host::look(&transaction).await?;
    let former = former::find_archive(&transaction).await?;
    let due = Due { cutoff, has_hashes };
    let rules = Rules { due, kept_types: &settings.keep_event_types, former: former.as_ref() };
    let DueRows { months, held_back } = remainder::count_due_rows(&transaction, &facts, &columns, &rules).await?;
    let rate = maintenance_runs::find_last_rate(&transaction).await?.unwrap_or(CAUTIOUS_RATE);
    transaction.commit().await?;
    let logs_due = months.iter().map(|month| month.rows).sum();
    Ok(DryRunReport {
        dry_run: true,
        snapshot_month: plan.snapshot_month,
        snapshots_due: streams.without_snapshot,
        cutoff: plan.cutoff,
        logs_due,
        months,
        held_back,
        estimated_seconds: maintenance_runs::seconds(logs_due, rate),
    })
}
