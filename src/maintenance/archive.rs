use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::NaiveDateTime;
use futures_util::future::join_all;
use futures_util::join;
use tokio::time::Instant;
use tokio_postgres::error::DbError;
use tokio_postgres::{IsolationLevel, Transaction};
use tracing::{debug, info, warn};

use super::slice::Slice;
use super::throttle::wait_while_busy;
use super::vacuum::vacuum;
use crate::error::{Error, Result, chain};
use crate::host::{HostFacts, HostFinding, HostLimits, findings};
use crate::model::{HeldBack, Month, Phase, Scope, StopReason};
use crate::store::archive_columns::MirroredColumns;
use crate::store::event_log::{self, Due, Position};
use crate::store::former::{self, FormerArchive};
use crate::store::ledger::{self, LedgerRange};
use crate::store::maintenance_runs::{self, MonthProgress, Progress};
use crate::store::moving::{self, BatchRequest, BatchRules, LockedLog, MovedBatch, Settled};
use crate::store::remainder::{self, Remainder, Rules};
use crate::store::row_form::RowForm;
use crate::store::session::Connection;
use crate::store::{holds, host, partitions, session, stream_identity};

/// How often the indexes of a partition are tried to be built, when somebody else's lock is in the way.
const MAX_INDEX_ATTEMPTS: u32 = 3;
/// How often a month is begun again: most locks are short, and who writes old rows without end is not waited for.
const MAX_PASSES: u32 = 4;

/// What the workers share.
struct Archiving<'a> {
    slice: &'a Slice<'a>,
    due: Due,
    /// The host as it was last looked at, and the version of its definition then.
    host: Mutex<KnownHost>,
    /// The former service's archive, if it is there.
    former: Option<FormerArchive>,
    /// What may hold an event that the host has ingested again since.
    archived_before: Vec<LedgerRange>,
    /// Where the next month is looked for; a worker that finds one moves it on.
    next_month: tokio::sync::Mutex<NaiveDateTime>,
    tally: Mutex<Tally>,
}

/// The version of the log's definition, and what was seen of the host then.
type KnownHost = (String, Arc<HostFacts>);

/// What this slice has done, and how far the run's months are.
#[derive(Debug)]
struct Tally {
    started: Instant,
    rows: u64,
    months: BTreeMap<Month, MonthProgress>,
}

/// Moves the logs created before the cutoff to the archive, month by month, several months at a time, until none is left but those
/// that stay for a reason (domain rule 11). Returns why it stopped, if that was before its end.
pub(super) async fn archive(slice: &Slice<'_>) -> Result<Option<StopReason>> {
    let run = &slice.run;
    let host = look_at_host(slice).await?;
    if let Some(stop) = prepare(slice, &host.1).await? {
        return Ok(Some(stop));
    }
    let archiving = Archiving::new(slice, host).await?;
    let stopped = loop {
        let before = archiving.tally().rows;
        if let Some(stop) = archiving.archive_months().await? {
            break Some(stop);
        }
        if archiving.tally().rows > before {
            slice.record(&Progress { phase: Some(Phase::Vacuum), ..Progress::default() }).await?;
            vacuum(slice).await?;
        }
        // The last act: what is left now stays, each row for a reason that the run tells.
        let Remainder { mut held_back, unexplained, months } = match archiving.count_remainder().await {
            Err(error) if error.retry().is_some() => match slice.deadline.has_come() {
                Some(stop) => break Some(stop),
                None => return Err(error),
            },
            remainder => remainder?,
        };
        if archiving.begin_again(&months).await {
            slice.record(&Progress { phase: Some(Phase::Archive), ..Progress::default() }).await?;
            debug!(run = %run.id, ?months, "snapshot maintenance: due logs are left and tried again");
            continue;
        }
        held_back.extend(unexplained);
        held_back.sort_by_key(|held| held.reason);
        archiving.end(held_back).await?;
        break None;
    };
    let rows = archiving.tally().rows;
    info!(run = %run.id, cutoff = %run.cutoff, rows, ?stopped, "snapshot maintenance: archive");
    Ok(stopped)
}

/// Looks at the host before anything is done with its log, and refuses one that cannot be worked with, or whose columns the archive
/// cannot hold (domain rule 5).
async fn look_at_host(slice: &Slice<'_>) -> Result<KnownHost> {
    let client = slice.pool.get().await?;
    let limits = slice.settings.limits();
    let version = session::read(&client, &limits, host::get_version(&**client)).await?;
    let facts = session::read(&client, &limits, host::look(&**client)).await?;
    check_host(&facts)?;
    session::read(&client, &limits, MirroredColumns::load(&**client)).await?;
    Ok((version, Arc::new(facts)))
}

/// Refuses to archive from a log that cannot be worked with, naming the object and the cure (domain rule 10).
fn check_host(facts: &HostFacts) -> Result<()> {
    let refusal = findings(facts, HostLimits::default()).into_iter().find(|finding| finding.effect.refuses_archive());
    refusal.map_or(Ok(()), |finding| Err(Error::HostRefuses { finding: Box::new(finding) }))
}

/// Prepares the archive and returns the months that are left to archive, oldest first; or why it stopped before. They are
/// recorded: that one of them was never begun must not be overlooked because later ones are done.
pub(super) async fn plan(slice: &Slice<'_>) -> Result<std::result::Result<Vec<Month>, StopReason>> {
    let host = look_at_host(slice).await?;
    if let Some(stop) = prepare(slice, &host.1).await? {
        return Ok(Err(stop));
    }
    let archiving = Archiving::new(slice, host).await?;
    let client = slice.pool.get().await?;
    let mut months = Vec::new();
    while let Some(month) = archiving.take_month(&client).await? {
        slice.record(&Progress { month: Some((month, archiving.month(month))), ..Progress::default() }).await?;
        months.push(month);
    }
    Ok(Ok(months))
}

/// Moves the due logs of one month, beside slices that move others. Returns why it stopped, if that was before its end.
/// Rows that are in use are left to the slice that ends the run.
pub(super) async fn archive_one(slice: &Slice<'_>, month: Month) -> Result<Option<StopReason>> {
    let archiving = Archiving::new(slice, look_at_host(slice).await?).await?;
    let mut client = slice.pool.get().await?;
    // A slice before loaded it, and did not come to its indexes.
    let list = partitions::list_unindexed_partitions(&**client);
    if session::read(&client, &slice.settings.limits(), list).await?.contains(&month)
        && let Some(stop) = index_partition(slice, &mut client, month).await?
    {
        return Ok(Some(stop));
    }
    let stopped = if archiving.month(month).done { None } else { archiving.archive_month(&mut client, month).await? };
    info!(run = %slice.run.id, %month, rows = archiving.tally().rows, ?stopped, "snapshot maintenance: month");
    Ok(stopped)
}

/// What comes before the first row: the guard on how many there are, and indexes that a slice before did not come to.
async fn prepare(slice: &Slice<'_>, facts: &HostFacts) -> Result<Option<StopReason>> {
    let mut client = slice.pool.get().await?;
    guard_rows(slice, &mut client, facts).await?;
    prepare_partitions(slice, &mut client).await
}

/// Indexes what is there, unless that was done. Returns why it stopped, if that was before its end.
pub(super) async fn prepare_partitions(slice: &Slice<'_>, client: &mut Connection) -> Result<Option<StopReason>> {
    let list = partitions::list_unindexed_partitions(&**client);
    let mut unindexed = session::read(client, &slice.settings.limits(), list).await?;
    if slice.run.scope == Scope::Restore && !unindexed.is_empty() {
        let others = maintenance_runs::is_another_run_held(&**client, slice.run.id);
        if session::read(client, &slice.settings.limits(), others).await? {
            // Whoever loads a partition at this moment builds its indexes afterwards, and would wait for this.
            unindexed.clear();
        }
    }
    for month in unindexed {
        if let Some(stop) = index_partition(slice, client, month).await? {
            return Ok(Some(stop));
        }
        if let Some(stop) = slice.stop() {
            return Ok(Some(stop));
        }
    }
    Ok(None)
}

/// Refuses to archive more rows than the settings allow, unless the run is forced to; estimates how many there are.
async fn guard_rows(slice: &Slice<'_>, client: &mut Connection, facts: &HostFacts) -> Result<()> {
    let (run, limits) = (&slice.run, slice.settings.limits());
    let cutoff = run.cutoff.naive_utc();
    if run.rows_estimated.is_some() {
        return Ok(());
    }
    if let Some(max_rows) = slice.settings.max_archive_rows.filter(|_| !run.force) {
        let count = event_log::are_more_due_than(&**client, cutoff, &slice.settings.keep_event_types, max_rows);
        // A quick look first. Many of them may be referenced, and stay.
        if slice.keep_lease_while(session::read(&*client, &slice.long_limits(), count)).await?
            && (facts.references.is_empty()
                || slice.keep_lease_while(count_due_rows(slice, client, facts)).await? > max_rows)
        {
            return Err(Error::TooManyRows { max_rows });
        }
    }
    let estimate = session::read(&*client, &limits, event_log::estimate_due_rows(&**client, cutoff)).await?;
    slice.record(&Progress { rows_estimated: Some(estimate), ..Progress::default() }).await
}

/// How many rows the run would archive.
async fn count_due_rows(slice: &Slice<'_>, client: &mut Connection, facts: &HostFacts) -> Result<u64> {
    let transaction = session::begin_read(client, &slice.long_limits(), IsolationLevel::RepeatableRead).await?;
    let columns = MirroredColumns::load(&transaction).await?;
    let former = former::find_archive(&transaction).await?;
    let cutoff = slice.run.cutoff.naive_utc();
    let has_hashes = event_log::has_due_hashes(&transaction, &columns, cutoff).await?;
    let due = Due { cutoff, has_hashes };
    let rules = Rules { due, kept_types: &slice.settings.keep_event_types, former: former.as_ref() };
    let counted = remainder::count_due_rows(&transaction, facts, &columns, &rules).await?;
    Ok(counted.months.iter().map(|month| month.rows).sum())
}

/// Builds what a partition lacks of its indexes, each in a transaction of its own, and brings its statistics up to date.
/// Returns why it stopped, if there was no time for that.
async fn index_partition(slice: &Slice<'_>, client: &mut Connection, month: Month) -> Result<Option<StopReason>> {
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let build = async {
            let transaction = session::begin(client, &slice.long_limits()).await?;
            let built = partitions::build_next_index(&transaction, month).await?;
            slice.commit(transaction, &Progress { current_month: Some(month), ..Progress::default() }).await?;
            Ok(built)
        };
        match slice.keep_lease_while(build).await {
            Ok(true) => {
                let milliseconds = started.elapsed().as_millis();
                debug!(run = %slice.run.id, %month, milliseconds, "snapshot maintenance: index built");
            }
            Ok(false) => break,
            Err(error) if error.retry().is_none() => return Err(error),
            Err(error) => {
                if let Some(stop) = slice.deadline.has_come() {
                    return Ok(Some(stop));
                }
                failures += 1;
                if failures == MAX_INDEX_ATTEMPTS {
                    return Err(error);
                }
                warn!(run = %slice.run.id, %month, error = chain(&error), "snapshot maintenance: indexing is tried again");
            }
        }
    }
    analyze(slice, client, month).await?;
    Ok(None)
}

/// Brings a partition's statistics up to date. All rows are where they belong: it may fail.
pub(super) async fn analyze(slice: &Slice<'_>, client: &mut Connection, month: Month) -> Result<()> {
    let analyze = async {
        let transaction = session::begin(client, &slice.long_limits()).await?;
        partitions::analyze_partition(&transaction, month).await?;
        slice.commit(transaction, &Progress::default()).await
    };
    match slice.keep_lease_while(analyze).await {
        Err(error) if error.retry().is_some() => {
            warn!(run = %slice.run.id, %month, error = chain(&error), "snapshot maintenance: a partition is not analysed");
            Ok(())
        }
        result => result,
    }
}

/// What a batch has done.
struct Batch {
    moved: MovedBatch,
    duplicates: Settled,
}

impl Batch {
    /// Rows dealt with.
    fn rows(&self) -> u64 {
        self.moved.moved + self.duplicates.dropped
    }
}

/// Records the ids that all streams have now, where one is under legal hold: one that was given another id since the snapshots is
/// held all the same.
async fn record_held_ids(slice: &Slice<'_>, client: &mut Connection) -> Result<()> {
    if session::read(&*client, &slice.settings.limits(), holds::list_holds(&**client)).await?.is_empty() {
        return Ok(());
    }
    let record = async {
        let transaction = session::begin(client, &slice.long_limits()).await?;
        stream_identity::observe_all(&transaction).await?;
        slice.commit_preparation(transaction, &Progress::default()).await
    };
    slice.keep_lease_while(record).await
}

impl<'a> Archiving<'a> {
    async fn new(slice: &'a Slice<'a>, host: KnownHost) -> Result<Self> {
        let mut client = slice.pool.get().await?;
        let limits = slice.settings.limits();
        let cutoff = slice.run.cutoff.naive_utc();
        record_held_ids(slice, &mut client).await?;
        let columns = session::read(&client, &limits, MirroredColumns::load(&**client)).await?;
        // Looks at all rows where none has a hash.
        let look = event_log::has_due_hashes(&**client, &columns, cutoff);
        let has_hashes = slice.keep_lease_while(session::read(&client, &slice.long_limits(), look)).await?;
        let former = session::read(&client, &limits, former::find_archive(&**client)).await?;
        let before = ledger::list_archived_before(&**client, slice.run.id);
        let archived_before = session::read(&client, &limits, before).await?;
        let months = slice.state.months.clone();
        // Months before the first that is not done need not be walked through again: what is left there the look at the end finds.
        let first = months.iter().find(|(_, progress)| !progress.done).map(|(month, _)| month.start());
        let next = first.or_else(|| months.keys().next_back().map(|last| last.end()));
        Ok(Self {
            slice,
            due: Due { cutoff, has_hashes },
            host: Mutex::new(host),
            former,
            archived_before,
            next_month: tokio::sync::Mutex::new(next.unwrap_or_else(event_log::first_instant)),
            tally: Mutex::new(Tally { started: Instant::now(), rows: 0, months }),
        })
    }
}

impl Archiving<'_> {
    /// Goes through the months that are not done, several at a time. Returns why it stopped, if that was before their end.
    async fn archive_months(&self) -> Result<Option<StopReason>> {
        let slice = self.slice;
        let workers = (0..slice.settings.workers.max(1)).map(|_| async {
            let result = self.work().await;
            if result.is_err() {
                slice.fail();
            }
            result
        });
        // All of them: one that fails does not cut off the others' batches.
        let mut stopped = None;
        let mut failed = None;
        for result in join_all(workers).await {
            match result {
                Ok(stop) => stopped = stopped.or(stop),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(stopped), Err)
    }

    /// Makes those of `months`, which have rows that nothing holds, be gone through once more, from their start; not one where that
    /// was of no use, whose rows are in use. Returns whether there are any.
    async fn begin_again(&self, months: &[Month]) -> bool {
        let mut first = None;
        {
            let mut tally = self.tally();
            for month in months {
                let MonthProgress { passes, moved, .. } = tally.months.get(month).cloned().unwrap_or_default();
                if passes >= MAX_PASSES || (passes > 0 && moved == 0) {
                    continue;
                }
                tally.months.insert(*month, MonthProgress { passes: passes + 1, ..MonthProgress::default() });
                first = first.or(Some(*month));
            }
        }
        let Some(first) = first else { return false };
        *self.next_month.lock().await = first.start();
        true
    }

    /// What is due and left, as of one instant, and why.
    async fn count_remainder(&self) -> Result<Remainder> {
        let (slice, facts) = (self.slice, self.facts());
        let mut client = slice.pool.get().await?;
        let rules = Rules { due: self.due, kept_types: &slice.settings.keep_event_types, former: self.former.as_ref() };
        let count = async {
            let limits = slice.long_limits();
            let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
            let columns = MirroredColumns::load(&transaction).await?;
            remainder::count_remainder(&transaction, &facts, &columns, &rules).await
        };
        slice.keep_lease_while(count).await
    }

    fn facts(&self) -> Arc<HostFacts> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// The log under the lock of `transaction`: until that ends nobody can change it. What was looked at before still holds where
    /// the definition has not changed; else it is looked at anew. Tables that reference the log are not locked.
    async fn look(&self, transaction: &Transaction<'_>) -> Result<(Arc<HostFacts>, MirroredColumns, RowForm)> {
        let (version, columns, form) =
            join!(host::get_version(transaction), MirroredColumns::load(transaction), RowForm::load(transaction));
        let (version, columns, form) = (version?, columns?, form?);
        let (known, mut facts) = self.host.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if version != known || !facts.references.is_empty() {
            facts = Arc::new(host::look(transaction).await?);
            *self.host.lock().unwrap_or_else(PoisonError::into_inner) = (version, facts.clone());
        }
        check_host(&facts)?;
        Ok((facts, columns, form))
    }

    /// Takes month after month, until none is left or it is time to stop.
    async fn work(&self) -> Result<Option<StopReason>> {
        let mut client = self.slice.pool.get().await?;
        loop {
            if let Some(stop) = self.slice.stop() {
                return Ok(Some(stop));
            }
            let Some(month) = self.take_month(&client).await? else { return Ok(None) };
            if let Some(stop) = self.archive_month(&mut client, month).await? {
                return Ok(Some(stop));
            }
        }
    }

    /// The next month with due rows, which no other worker gets.
    async fn take_month(&self, client: &Connection) -> Result<Option<Month>> {
        let mut after = self.next_month.lock().await;
        let limits = self.slice.settings.limits();
        let columns = session::read(client, &limits, MirroredColumns::load(&**client)).await?;
        loop {
            let find = event_log::find_next_due(&**client, &columns, self.due, *after);
            let Some(created_at) = session::read(client, &limits, find).await? else { return Ok(None) };
            let month = Month::of(created_at.and_utc());
            *after = month.end();
            if !self.month(month).done {
                return Ok(Some(month));
            }
        }
    }

    /// Moves the due rows of `month`, oldest first, to its partition. One that is made for it gets its indexes when it is
    /// loaded: until then nothing but this looks for single rows in it.
    async fn archive_month(&self, client: &mut Connection, month: Month) -> Result<Option<StopReason>> {
        let slice = self.slice;
        let is_new = match self.make_partition(client, month).await? {
            Ok(is_new) => is_new,
            Err(stop) => return Ok(Some(stop)),
        };
        let mut size = slice.batch_size();
        let mut moved = 0;
        while !self.month(month).done {
            if let Some(stop) = wait_while_busy(slice, client).await? {
                return Ok(Some(stop));
            }
            let after = self.month(month).after.unwrap_or_else(|| Position::before(month.start()));
            let mut attempt = size.attempt();
            let batch = loop {
                let request = BatchRequest {
                    rules: self.rules(),
                    month,
                    is_new,
                    after: &after,
                    limit: attempt.rows(),
                    name_mismatches: slice.has_room_for_findings(),
                };
                match self.archive_batch(client, &request).await {
                    Ok(batch) => break batch,
                    Err(error) => {
                        if let Some(stop) = slice.retry(&mut attempt, error).await? {
                            return Ok(Some(stop));
                        }
                    }
                }
            };
            slice.succeed(attempt, batch.seen);
            moved += batch.moved;
            if let Some(stop) = slice.stop() {
                return Ok(Some(stop));
            }
        }
        if is_new {
            return index_partition(slice, client, month).await;
        }
        if moved > 0 {
            analyze(slice, client, month).await?;
        }
        Ok(None)
    }

    /// Makes the partition of `month` unless it is there. Returns whether it did, or why to stop.
    async fn make_partition(
        &self,
        client: &mut Connection,
        month: Month,
    ) -> Result<std::result::Result<bool, StopReason>> {
        let (slice, limits) = (self.slice, self.slice.settings.limits());
        // One that was there has its indexes: they were looked after before.
        if session::read(client, &limits, partitions::has_partition(&**client, month)).await? {
            return Ok(Ok(false));
        }
        let mut size = slice.batch_size();
        let mut attempt = size.attempt();
        loop {
            let make = async {
                let transaction = session::begin(client, &limits).await?;
                let created = partitions::create_partition(&transaction, month).await;
                created.map_err(|error| self.refused_partition(error))?;
                slice.commit_preparation(transaction, &Progress::default()).await
            };
            match make.await {
                // A table of that name may be there and be no partition: rows in it would be lost to readers.
                Ok(()) if session::read(client, &limits, partitions::has_partition(&**client, month)).await? => {
                    return Ok(Ok(true));
                }
                Ok(()) => return Err(Error::PartitionDetached { month }),
                Err(error) => {
                    if let Some(stop) = slice.retry(&mut attempt, error).await? {
                        return Ok(Err(stop));
                    }
                }
            }
        }
    }

    /// What the database said of a new partition: an event trigger of the host's that raised an error is told by its name.
    fn refused_partition(&self, error: Error) -> Error {
        let facts = self.facts();
        // The innermost function comes first: one of the service's own makes the partition.
        let is_of_host = |place: &str| {
            place.lines().next().is_some_and(|line| line.contains("function ") && !line.contains("stream_archive_"))
        };
        let is_raised = matches!(&error, Error::Database(source)
            if source.as_db_error().and_then(DbError::where_).is_some_and(is_of_host));
        if facts.event_triggers.is_empty() || !is_raised {
            return error;
        }
        warn!(run = %self.slice.run.id, cause = chain(&error), "snapshot maintenance: an event trigger raised an error");
        Error::HostRefuses { finding: Box::new(HostFinding::event_trigger_refuses(&facts)) }
    }

    fn rules(&self) -> BatchRules<'_> {
        let Slice { run, settings, .. } = self.slice;
        BatchRules {
            due: self.due,
            kept_types: &settings.keep_event_types,
            archived_before: &self.archived_before,
            started_at: run.started_at.naive_utc(),
            run: run.id,
            prove: settings.prove,
        }
    }

    /// Moves one batch, and settles what the archive has of it already, as one transaction.
    async fn archive_batch(&self, client: &mut Connection, request: &BatchRequest<'_>) -> Result<MovedBatch> {
        let transaction = session::begin(client, &self.slice.settings.limits()).await?;
        event_log::lock_columns(&transaction).await?;
        // Under the lock and for each batch: what the host changes between two batches is not overlooked.
        let (facts, columns, form) = self.look(&transaction).await?;
        let log = LockedLog { facts: &facts, columns, form, former: self.former.as_ref() };
        let moved = moving::move_due_batch(&transaction, &log, request).await?;
        let duplicates = moving::settle_duplicates(&transaction, &log, request, &moved).await?;
        moving::check_holds(&transaction, &moved).await?;
        let mut batch = Batch { moved, duplicates };
        let month = self.month_after(request, &batch);
        let progress = self.progress(request.month, &month, &mut batch);
        self.slice.commit(transaction, &progress).await?;
        self.count(request.month, month, &batch);
        Ok(batch.moved)
    }

    /// How far the batch's month is once the batch is committed.
    fn month_after(&self, request: &BatchRequest<'_>, batch: &Batch) -> MonthProgress {
        let mut month = self.month(request.month);
        month.after = batch.moved.last.clone().or(month.after);
        month.moved += batch.rows();
        // What is left of the month is locked or came too late: the look at the end finds it.
        month.done = batch.moved.seen < u64::from(request.limit);
        month
    }

    /// What the run has to show once this batch is committed.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
    fn progress(&self, name: Month, month: &MonthProgress, batch: &mut Batch) -> Progress {
        let tally = self.tally();
        let rows = tally.rows + batch.rows();
        let rate = rows as f64 / tally.started.elapsed().as_secs_f64().max(0.001);
        Progress {
            logs_archived: batch.moved.moved,
            already_archived: batch.duplicates.already_archived,
            duplicates_dropped: batch.duplicates.dropped - batch.duplicates.already_archived,
            hash_mismatches: batch.moved.mismatches.count,
            mismatches: std::mem::take(&mut batch.moved.mismatches.named),
            month: Some((name, month.clone())),
            current_month: Some(name),
            rows_per_second: (rows > 0).then_some(rate),
            ..Progress::default()
        }
    }

    /// Counts a batch that is committed.
    fn count(&self, name: Month, month: MonthProgress, batch: &Batch) {
        let run = &self.slice.run.id;
        let (rows, dropped) = (batch.moved.moved, batch.duplicates.dropped);
        debug!(%run, month = %name, rows, dropped, "snapshot maintenance: archive batch");
        let conflicts = batch.duplicates.conflicts.len();
        if conflicts > 0 && self.slice.may_log() {
            let such_as = batch.duplicates.conflicts.iter().take(10).collect::<Vec<_>>();
            warn!(%run, conflicts, ?such_as, "snapshot maintenance: logs whose archived copy differs stay in EventLog");
        }
        let mismatches = batch.moved.mismatches.count;
        if mismatches > 0 && self.slice.may_log() {
            warn!(%run, month = %name, mismatches, "snapshot maintenance: entry hashes are not those of their rows");
        }
        let mut tally = self.tally();
        tally.rows += batch.rows();
        tally.months.insert(name, month);
    }

    /// Ends the phase, and records which due rows stay and why.
    async fn end(&self, held_back: Vec<HeldBack>) -> Result<()> {
        self.slice
            .record(&Progress { held_back: Some(held_back), phase: Some(Phase::Vacuum), ..Progress::default() })
            .await
    }

    /// How far a month is.
    fn month(&self, month: Month) -> MonthProgress {
        self.tally().months.get(&month).cloned().unwrap_or_default()
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        // Nothing panics while it holds the lock, and counts are whole at any time.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
