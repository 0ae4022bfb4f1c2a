use std::cmp::Ordering;
use std::sync::atomic::{self, AtomicBool, AtomicU64};
use std::time::Duration;

use futures_util::future::join_all;
use seal::{Mismatch, SealDifference};
use tokio_postgres::IsolationLevel;
use tracing::{info, warn};
use uuid::Uuid;

use super::engine::{Engine, Halt, Work};
use crate::error::{Error, Result, chain};
use crate::model::{
    Break, BreakKind, ContractId, Finding, FindingKind, MAX_LOGGED_BREAKS, MAX_REPORTED_BREAKS, Month, Verification,
    VerificationRequest,
};
use crate::store::event_log::{LogPosition, estimate_log_rows, first_instant};
use crate::store::links::{self, Named};
use crate::store::session::{self, Limits};
use crate::store::verification::{self, ClaimedTask, Outcome, Task};

/// What a statement gets however little time there is: enough for a large month's.
const LEAST_TIME: Duration = Duration::from_mins(1);
/// Rows of `EventLog` that one statement looks at: it takes a fraction of a second.
const LOG_BATCH_ROWS: u32 = 50_000;

/// Recomputes the seals, the entry hashes and the links, several seals at a time, and records what it finds. Changes
/// nothing else. Works until the engine's deadline; the next verification of the same kind continues.
pub(crate) async fn verify(
    engine: Engine<'_>,
    request: &VerificationRequest,
    contract_ids: Option<&[ContractId]>,
) -> Result<Verification> {
    let Engine { pool, settings, .. } = engine;
    let (tasks, rows) = list_tasks(engine, request, contract_ids).await?;
    let mut client = pool.get().await?;
    let transaction = session::begin(&mut client, &settings.limits()).await?;
    let id = verification::begin_verification(&transaction, request, &tasks, rows, engine.called_at).await?;
    transaction.commit().await?;
    drop(client);
    info!(verification = %id, rows, tasks = tasks.len(), "snapshot maintenance: verification begins");
    let verifying = Verifying {
        engine,
        id,
        contract_ids,
        has_begun: AtomicBool::new(false),
        found: AtomicU64::new(0),
        logged: AtomicU64::new(0),
    };
    let result = verifying.work().await;
    verifying.log_the_rest();
    // What was looked at stays so, whatever went wrong with another task.
    let mut client = pool.get().await?;
    let transaction = session::begin(&mut client, &settings.limits()).await?;
    verification::end_verification(&transaction, id).await?;
    transaction.commit().await?;
    match result {
        // There was no time for the task.
        Err(Halt::Failed(error)) if error.retry().is_some() && engine.deadline.has_come().is_some() => {}
        Err(Halt::Failed(error)) => return Err(error),
        Ok(()) | Err(Halt::Stop(_)) => {}
    }
    let get = verification::get_verification(&**client, id);
    let verification = session::read(&client, &settings.limits(), get).await?;
    let Verification { status, break_count: breaks, finding_count: findings, rows_done: rows, .. } = verification;
    info!(verification = %id, ?status, breaks, findings, rows, "snapshot maintenance: verification ends");
    Ok(verification)
}

/// All there is to look at, in order, and how many rows that are.
async fn list_tasks(
    engine: Engine<'_>,
    request: &VerificationRequest,
    contract_ids: Option<&[ContractId]>,
) -> Result<(Vec<Task>, u64)> {
    let client = engine.connect().await?;
    let limits = limits(engine);
    let mut months = session::read(&client, &limits, verification::list_months(&**client)).await?;
    months.retain(|month| request.month.is_none_or(|wanted| wanted == *month));
    let mut tasks = vec![Task::Partitions];
    let mut total = 0;
    for month in months {
        let list = verification::list_seals(&**client, month, contract_ids);
        let (seals, rows) = session::read(&client, &limits, list).await?;
        total += rows;
        tasks.extend(seals.into_iter().map(|sequence| Task::Seal(month, sequence)));
        tasks.extend([Task::Month(month), Task::Links(month)]);
    }
    if request.full {
        total += session::read(&client, &limits, estimate_log_rows(&**client)).await?;
        tasks.extend([Task::Logs(None), Task::LogLinks]);
    }
    Ok((tasks, total))
}

/// A statement may take what time there is: a seal of a former archive has as many rows as that.
fn limits(engine: Engine<'_>) -> Limits {
    // Zero is no limit to PostgreSQL.
    let statement = engine.deadline.remaining().map_or(Duration::ZERO, |left| left.max(LEAST_TIME));
    Limits { statement, lock: engine.settings.lock_timeout }
}

struct Verifying<'a> {
    engine: Engine<'a>,
    /// The verification.
    id: Uuid,
    /// Of the stream that it is limited to.
    contract_ids: Option<&'a [ContractId]>,
    /// Each call does something, so that repeated calls always end.
    has_begun: AtomicBool,
    /// Breaks that this call has found.
    found: AtomicU64,
    /// Those of them that it has logged.
    logged: AtomicU64,
}

impl Verifying<'_> {
    /// Looks at the tasks that are left, several at a time.
    async fn work(&self) -> Work {
        // One connection is for recording.
        let connections = self.engine.pool.status().max_size.saturating_sub(1);
        let workers = self.engine.settings.workers.min(connections).max(1);
        let halts = join_all((0..workers).map(|_| self.work_through())).await.into_iter().filter_map(Work::err);
        // An error goes before a reason to stop.
        halts.min_by_key(|halt| matches!(halt, Halt::Stop(_))).map_or(Ok(()), Err)
    }

    /// Claims task after task, until none is left.
    async fn work_through(&self) -> Work {
        loop {
            if self.has_begun.swap(true, atomic::Ordering::Relaxed) {
                self.check_time()?;
            }
            let Some(claimed) = self.claim().await? else { return Ok(()) };
            // Side by side: a task may take longer than its lease lasts.
            let looked = tokio::select! {
                looked = self.look_at(&claimed) => looked,
                error = self.renew_for_ever(&claimed) => Err(error.into()),
            };
            if looked.is_err()
                && let Err(error) = self.release(&claimed).await
            {
                // The lease will expire.
                warn!(verification = %self.id, error = chain(&error), "snapshot maintenance: a task is not given back");
            }
            looked?;
        }
    }

    async fn look_at(&self, claimed: &ClaimedTask) -> Work {
        let outcome = match &claimed.task {
            Task::Partitions => self.look_at_partitions().await?,
            Task::Seal(month, sequence) => self.look_at_seal(*month, *sequence).await?,
            Task::Month(month) => self.look_at_month(*month).await?,
            Task::Links(month) => self.look_at_links(*month).await?,
            Task::Logs(after) => return self.look_at_logs(claimed, after.clone()).await,
            Task::LogLinks => self.look_at_log_links().await?,
        };
        Ok(self.record(claimed, None, &outcome).await?)
    }

    /// Renews the lease of a task time and again, until it is lost.
    async fn renew_for_ever(&self, claimed: &ClaimedTask) -> Error {
        let Engine { pool, settings, .. } = self.engine;
        loop {
            tokio::time::sleep(settings.lease / 3).await;
            let renew = async {
                let mut client = pool.get().await?;
                let transaction = session::begin_volatile(&mut client, &settings.limits()).await?;
                verification::renew_task(&transaction, self.id, claimed, settings.lease.as_secs_f64()).await?;
                Ok(transaction.commit().await?)
            };
            match renew.await {
                Err(error @ Error::LeaseLost { .. }) => return error,
                // There is time to try again before the lease expires.
                Err(error) => {
                    warn!(verification = %self.id, error = chain(&error), "snapshot maintenance: lease not renewed");
                }
                Ok(()) => {}
            }
        }
    }

    async fn release(&self, claimed: &ClaimedTask) -> Result<()> {
        let Engine { pool, settings, .. } = self.engine;
        let mut client = pool.get().await?;
        let transaction = session::begin_volatile(&mut client, &settings.limits()).await?;
        verification::release_task(&transaction, self.id, claimed).await?;
        Ok(transaction.commit().await?)
    }

    fn check_time(&self) -> Work {
        self.engine.deadline.has_come().map_or(Ok(()), |stop| Err(Halt::Stop(stop)))
    }

    async fn claim(&self) -> Result<Option<ClaimedTask>> {
        let Engine { pool, settings, .. } = self.engine;
        let mut client = pool.get().await?;
        let transaction = session::begin_volatile(&mut client, &settings.limits()).await?;
        let claimed = verification::claim_task(&transaction, self.id, settings.lease.as_secs_f64()).await?;
        transaction.commit().await?;
        Ok(claimed)
    }

    /// Records what looking at a task has shown; `left` is what is left of it.
    async fn record(&self, claimed: &ClaimedTask, left: Option<&LogPosition>, outcome: &Outcome) -> Result<()> {
        self.found.fetch_add(outcome.break_count, atomic::Ordering::Relaxed);
        for found in &outcome.breaks {
            if self.logged.load(atomic::Ordering::Relaxed) >= MAX_LOGGED_BREAKS {
                break;
            }
            self.logged.fetch_add(1, atomic::Ordering::Relaxed);
            warn!(verification = %self.id, kind = ?found.kind, message = found.message, "snapshot maintenance: a break");
        }
        let Engine { pool, settings, .. } = self.engine;
        let mut client = pool.get().await?;
        // A crash may lose it: the task is looked at again.
        let transaction = session::begin_volatile(&mut client, &settings.limits()).await?;
        let lease_seconds = settings.lease.as_secs_f64();
        verification::record_task(&transaction, self.id, claimed, left, outcome, lease_seconds).await?;
        Ok(transaction.commit().await?)
    }

    /// Says how many breaks are in no line of the log.
    fn log_the_rest(&self) {
        let more = self.found.load(atomic::Ordering::Relaxed) - self.logged.load(atomic::Ordering::Relaxed);
        if more > 0 {
            warn!(
                verification = %self.id, more,
                "snapshot maintenance: there are more breaks; the verification has the first {MAX_REPORTED_BREAKS}"
            );
        }
    }

    async fn look_at_partitions(&self) -> Result<Outcome> {
        let client = self.engine.connect().await?;
        let list = verification::list_foreign_partitions(&**client);
        let foreign = session::read(&client, &limits(self.engine), list).await?;
        let breaks = foreign.into_iter().map(|(name, bounds)| Break {
            kind: BreakKind::RowInserted,
            month: None,
            sequence: None,
            log_id: None,
            message: format!(
                "the partition {name} ({bounds}) of the archive is not of one month: no seal has its rows"
            ),
        });
        Ok(Outcome::new(0, 0, breaks.collect()))
    }

    async fn look_at_seal(&self, month: Month, sequence: i32) -> Result<Outcome> {
        let mut client = self.engine.connect().await?;
        // One snapshot: rows may leave the month between two statements.
        let transaction =
            session::begin_read(&mut client, &limits(self.engine), IsolationLevel::RepeatableRead).await?;
        let place = Place { month, sequence };
        let seal = match verification::recompute_seal(&transaction, month, sequence).await {
            Ok(Some(seal)) => seal,
            Ok(None) => return Ok(Outcome { seals: 1, opens_links: Some(month), ..Outcome::default() }),
            Err(Error::ArchiveColumnsDiffer { columns }) => {
                let message = format!("the archive has lost columns: {}", columns.join(", "));
                let breaks = vec![place.seal_break(BreakKind::RowAltered, &message)];
                return Ok(Outcome { opens_links: Some(month), ..Outcome::new(0, 1, breaks) });
            }
            Err(error) => return Err(error),
        };
        let mut breaks = Vec::new();
        let mut break_count = seal.excess_count;
        if seal.is_right && !seal.leaves_right {
            breaks.push(place.seal_break(BreakKind::SealAltered, "has leaves that are not its rows'"));
            break_count += 1;
        }
        if !seal.is_right {
            breaks = explain(place, &seal.difference);
            // Where few rows differ, all are named; where none does, the seal itself is the break.
            let is_cut = breaks.len() == MAX_REPORTED_BREAKS;
            break_count += if is_cut { seal.difference.count } else { breaks.len() as u64 };
        }
        let excess = seal.excess_ids.iter();
        breaks.extend(excess.map(|id| {
            place.row_break(BreakKind::RowAltered, id, "has a value in a column that was empty when it was archived")
        }));
        breaks.truncate(MAX_REPORTED_BREAKS);
        let are_links_sound =
            break_count == 0 && links::are_seal_ends(&transaction, month, sequence, &seal.unlinked).await?;
        Ok(Outcome {
            opens_links: (!are_links_sound).then_some(month),
            rows: seal.rows,
            seals: 1,
            break_count,
            breaks,
            finding_count: seal.mismatches.count,
            findings: seal.mismatches.named.iter().map(|mismatch| hash_finding(Some(month), mismatch)).collect(),
            completed_by_host: seal.completed_by_host,
        })
    }

    async fn look_at_month(&self, month: Month) -> Result<Outcome> {
        let mut client = self.engine.connect().await?;
        let transaction =
            session::begin_read(&mut client, &limits(self.engine), IsolationLevel::RepeatableRead).await?;
        let mut breaks = Vec::new();
        let check = verification::check_month(&transaction, month).await?;
        let mut break_count = check.count;
        for sequence in check.missing {
            breaks.push(Place { month, sequence }.seal_break(BreakKind::SealMissing, "is gone"));
        }
        for sequence in check.beyond {
            breaks.push(
                Place { month, sequence }.seal_break(BreakKind::SealAltered, "is none that the end of the chain knows"),
            );
        }
        let month_break = |kind, log_id: Option<String>, message: String| Break {
            kind,
            month: Some(month),
            sequence: None,
            log_id,
            message,
        };
        if !check.is_end_right {
            let message = format!("the end of the chain of {month} is not its last seal");
            breaks.push(month_break(BreakKind::SealAltered, None, message));
            break_count += 1;
        }
        for id in check.unsealed_ids {
            let message = format!("row {id} of {month} is in no batch that was archived");
            breaks.push(month_break(BreakKind::RowInserted, Some(id), message));
        }
        for id in check.unexplained_ids {
            let message = format!("row {id} of {month} left the archive, and no seal says so");
            breaks.push(month_break(BreakKind::RowMissing, Some(id), message));
        }
        breaks.truncate(MAX_REPORTED_BREAKS);
        // Rows that are in no seal have links, too.
        let opens_links = (break_count > 0).then_some(month);
        Ok(Outcome { break_count, breaks, opens_links, ..Outcome::default() })
    }

    async fn look_at_links(&self, month: Month) -> Result<Outcome> {
        let mut client = self.engine.connect().await?;
        let limits = limits(self.engine);
        let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
        let links = links::list_unlinked(&transaction, Some(month), self.contract_ids).await?;
        let broken = |(id, parent): &(String, String)| Break {
            kind: BreakKind::LinkBroken,
            month: Some(month),
            sequence: None,
            log_id: Some(id.clone()),
            message: format!(
                "row {id} of {month} has the parent_hash {parent}, which is the entry_hash of no row any more"
            ),
        };
        let breaks = links.broken.rows.iter().map(broken).collect();
        let (finding_count, findings) = link_findings(Some(month), &links.missing);
        Ok(Outcome { break_count: links.broken.count, breaks, finding_count, findings, ..Outcome::default() })
    }

    /// Looks at `EventLog` batch by batch, from the row behind `after` on.
    async fn look_at_logs(&self, claimed: &ClaimedTask, after: Option<LogPosition>) -> Work {
        let mut after = after.unwrap_or_else(|| LogPosition::before(first_instant()));
        loop {
            let mut client = self.engine.connect().await?;
            let limits = limits(self.engine);
            let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
            let most = LOG_BATCH_ROWS.into();
            let batch = verification::recompute_logs(&transaction, &after, self.contract_ids, most).await?;
            transaction.commit().await?;
            drop(client);
            let outcome = Outcome {
                rows: batch.rows,
                finding_count: batch.mismatches.count,
                findings: batch.mismatches.named.iter().map(|mismatch| hash_finding(None, mismatch)).collect(),
                completed_by_host: batch.completed_by_host,
                ..Outcome::default()
            };
            let left = batch.last.filter(|_| batch.rows >= LOG_BATCH_ROWS.into());
            self.record(claimed, left.as_ref(), &outcome).await?;
            let Some(last) = left else { return Ok(()) };
            after = last;
            self.check_time()?;
        }
    }

    async fn look_at_log_links(&self) -> Result<Outcome> {
        let mut client = self.engine.connect().await?;
        let limits = limits(self.engine);
        let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
        // Of a row that is not archived nobody knows what it was like before.
        let links = links::list_unlinked(&transaction, None, self.contract_ids).await?;
        transaction.commit().await?;
        let (finding_count, findings) = link_findings(None, &links.missing);
        Ok(Outcome { finding_count, findings, ..Outcome::default() })
    }
}

/// A row of the archive's `month`, or of `EventLog`, in words.
fn row_of(month: Option<Month>, id: &str) -> String {
    month.map_or_else(|| format!("row {id} of EventLog"), |month| format!("row {id} of {month}"))
}

fn hash_finding(month: Option<Month>, mismatch: &Mismatch) -> Finding {
    let Mismatch { id, entry_hash, computed } = mismatch;
    let since = if month.is_some() { "; it was archived so" } else { "" };
    let message =
        format!("{} has the entry_hash {entry_hash}, but its contents have {computed}{since}", row_of(month, id));
    Finding { kind: FindingKind::HashMismatch, month, log_id: id.clone(), message }
}

/// How many findings the rows are whose parents are missing, and the first of them.
fn link_findings(month: Option<Month>, missing: &Named) -> (u64, Vec<Finding>) {
    let since = if month.is_some() { ", and none was found when it was archived" } else { "" };
    let finding = |(id, parent): &(String, String)| {
        let message =
            format!("{} has the parent_hash {parent}, which is the entry_hash of no row{since}", row_of(month, id));
        Finding { kind: FindingKind::LinkMissing, month, log_id: id.clone(), message }
    };
    (missing.count, missing.rows.iter().map(finding).collect())
}

/// A seal of a month.
#[derive(Debug, Clone, Copy)]
struct Place {
    month: Month,
    sequence: i32,
}

impl Place {
    fn seal_break(self, kind: BreakKind, message: &str) -> Break {
        let Self { month, sequence } = self;
        let message = format!("seal {sequence} of {month} {message}");
        Break { kind, month: Some(month), sequence: Some(sequence), log_id: None, message }
    }

    fn row_break(self, kind: BreakKind, id: &str, message: &str) -> Break {
        let Self { month, sequence } = self;
        let message = format!("row {id} of batch {sequence} of {month} {message}");
        Break { kind, month: Some(month), sequence: Some(sequence), log_id: Some(id.to_owned()), message }
    }
}

/// Says what makes a seal's digest wrong. A row that the seal has not, where one is that it has, is that one altered; else
/// it was inserted, or the other is missing.
fn explain(place: Place, difference: &SealDifference) -> Vec<Break> {
    let mut breaks = Vec::new();
    let mut sealed = difference.sealed.iter().copied().peekable();
    let mut present = difference.present.iter().peekable();
    // How many more rows there are than the seal has, up to here.
    let mut surplus = 0;
    // As many as are named of either list make as many breaks at least.
    while breaks.len() < MAX_REPORTED_BREAKS {
        let order = match (sealed.peek(), present.peek()) {
            (None, None) => break,
            (Some(number), Some((rank, _))) => (rank - surplus).cmp(number),
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
        };
        let number = if order.is_lt() { None } else { sealed.next() };
        let row = if order.is_gt() { None } else { present.next() };
        breaks.push(match (number, row) {
            (Some(_), Some((_, id))) => place.row_break(BreakKind::RowAltered, id, "is not what was archived"),
            (_, Some((_, id))) => {
                surplus += 1;
                place.row_break(BreakKind::RowInserted, id, "was not archived with it")
            }
            (number, None) => {
                surplus -= 1;
                let message = format!("lacks its row number {}", number.unwrap_or_default());
                place.seal_break(BreakKind::RowMissing, &message)
            }
        });
    }
    if breaks.is_empty() {
        breaks.push(place.seal_break(BreakKind::SealAltered, "is not what was written; its rows are"));
    }
    breaks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(sealed: &[i64], present: &[(i64, &str)]) -> Vec<(BreakKind, Option<String>)> {
        let place = Place { month: "2026-01".parse().expect("a month"), sequence: 1 };
        let present = present.iter().map(|(rank, id)| (*rank, (*id).to_owned())).collect();
        let breaks = explain(place, &SealDifference { sealed: sealed.to_vec(), present, ..SealDifference::default() });
        breaks.into_iter().map(|found| (found.kind, found.log_id)).collect()
    }

    #[test]
    fn a_row_in_the_place_of_another_is_altered_and_any_other_is_inserted_or_missing() {
        use BreakKind::{RowAltered, RowInserted, RowMissing, SealAltered};
        let row = |kind, id: &str| (kind, Some(id.to_owned()));
        assert_eq!(kinds(&[2], &[(2, "b")]), [row(RowAltered, "b")]);
        assert_eq!(kinds(&[], &[(2, "x")]), [row(RowInserted, "x")]);
        assert_eq!(kinds(&[3], &[]), [(RowMissing, None)]);
        assert_eq!(kinds(&[4], &[(1, "x"), (5, "d")]), [row(RowInserted, "x"), row(RowAltered, "d")]);
        assert_eq!(kinds(&[1, 4], &[(3, "d")]), [(RowMissing, None), row(RowAltered, "d")]);
        assert_eq!(kinds(&[1, 2], &[(1, "a")]), [row(RowAltered, "a"), (RowMissing, None)]);
        assert_eq!(kinds(&[], &[]), [(SealAltered, None)]);
    }
}
