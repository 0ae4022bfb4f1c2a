use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use futures_util::join;
use seal::RowForm;
use tokio::time::Instant;
use tokio_postgres::{GenericClient, IsolationLevel, Transaction};
use tracing::{debug, info, warn};

use super::engine::{Halt, Work};
use super::month::{self, ClaimedMonth, index_partitions, note_months};
use super::slice::{MonthChange, MonthWork, Slice, attempt};
use super::throttle::wait_while_busy;
use super::vacuum::vacuum;
use crate::error::{Error, Result};
use crate::host::{HostFacts, HostLimits, findings};
use crate::model::{Month, Phase};
use crate::store::archive_columns::MirroredColumns;
use crate::store::event_log::{self, Due, LogPosition};
use crate::store::former::{self, FormerArchive};
use crate::store::host::SeenHost;
use crate::store::leases::Change;
use crate::store::moving::{self, BatchRequest, BatchRules, LockedLog, MovedBatch, Settled};
use crate::store::remainder::{self, Remainder, Rules};
use crate::store::run_months::{self, ArchivedCounts};
use crate::store::seals::{self, LedgerRange};
use crate::store::session::Connection;
use crate::store::{holds, host, links, partitions, row_texts, session, stream_identity};

/// What the workers share.
pub(super) struct Archiving<'a> {
    slice: &'a Slice<'a>,
    due: Due,
    /// The host as it was last looked at.
    host: Mutex<Arc<KnownHost>>,
    /// The former service's archive, if it is there.
    former: Option<FormerArchive>,
    /// What may hold an event that the host has ingested again since.
    archived_before: Vec<LedgerRange>,
    started: Instant,
    /// Rows that this slice has dealt with.
    rows: AtomicU64,
    /// How many these were when the log was vacuumed.
    vacuumed: AtomicU64,
}

/// What was seen of the host.
#[derive(Debug)]
struct KnownHost {
    host: SeenHost,
    columns: MirroredColumns,
    form: RowForm,
}

impl KnownHost {
    async fn load(client: &impl GenericClient, host: SeenHost) -> Result<Self> {
        check_host(&host.facts)?;
        let columns = MirroredColumns::load(client).await?;
        Ok(Self { host, columns, form: row_texts::load_form(client).await? })
    }
}

/// Moves the logs created before the cutoff to the archive, several months at a time, until none is left but those that stay for a
/// reason (domain rule 11).
pub(super) async fn archive(slice: &Slice<'_>) -> Work {
    let host = look_at_host(slice).await?;
    if is_nothing_left(slice).await? {
        slice.record(&Change::RowsEstimated(0)).await?;
        info!(run = %slice.run.id, cutoff = %slice.run.cutoff, "snapshot maintenance: nothing is due");
        return Ok(slice.record(&Change::Archived(&[])).await?);
    }
    let archiving = Archiving::prepare(slice, host).await?;
    let result = archiving.archive().await;
    let (run, rows) = (slice.run.id, archiving.rows());
    let stopped = if let Err(Halt::Stop(reason)) = &result { Some(reason) } else { None };
    info!(%run, cutoff = %slice.run.cutoff, rows, ?stopped, "snapshot maintenance: archive");
    result
}

/// Whether no log is due, and nobody has left anything behind: then there is nothing to prepare for.
async fn is_nothing_left(slice: &Slice<'_>) -> Result<bool> {
    if slice.run.rows_estimated.is_some() {
        // A slice before has begun.
        return Ok(false);
    }
    let client = slice.engine.connect().await?;
    // Without an index it looks at all rows.
    let (limits, cutoff) = (slice.long_limits(), slice.run.cutoff.naive_utc());
    let look = session::read(&client, &limits, event_log::is_any_left(&**client, cutoff));
    if slice.keep_lease_while(None, look).await? {
        return Ok(false);
    }
    let limits = slice.engine.settings.limits();
    let unindexed = session::read(&client, &limits, partitions::list_unindexed_partitions(&**client)).await?;
    let unchecked = session::read(&client, &limits, links::list_unchecked_months(&**client)).await?;
    Ok(unindexed.is_empty() && unchecked.is_empty())
}

/// Notes the months that are left to archive, and returns them, oldest first.
pub(super) async fn plan(slice: &Slice<'_>) -> Work<Vec<Month>> {
    let archiving = Archiving::new(slice).await?;
    archiving.plan().await?;
    let client = slice.engine.connect().await?;
    Ok(archiving.list_months_left(&client).await?)
}

/// Moves the due logs of one month, beside slices that move others. Rows that are in use are left to the slice that ends the run.
pub(super) async fn archive_month(slice: &Slice<'_>, month: Month) -> Work {
    let archiving = Archiving::new(slice).await?;
    let mut client = slice.engine.connect().await?;
    if let Some(mut claimed) = month::claim(slice, &mut client, Some(month)).await? {
        let loaded = archiving.move_rows(&mut client, &mut claimed).await;
        info!(run = %slice.run.id, %month, rows = archiving.rows(), "snapshot maintenance: month");
        loaded?.finish(&mut client, &claimed).await?;
        claimed.release(&mut client).await?;
    }
    Ok(())
}

/// Looks at the host before anything is done with its log, and refuses one that cannot be worked with, or whose columns the archive
/// cannot hold (domain rule 5).
async fn look_at_host(slice: &Slice<'_>) -> Result<KnownHost> {
    let mut client = slice.engine.connect().await?;
    let limits = slice.engine.settings.limits();
    let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
    // Snapshots may have taken their time since it was looked at.
    let is_as_it_was = host::get_version(&transaction).await? == slice.host.version;
    let host = if is_as_it_was { slice.host.clone() } else { host::see(&transaction).await? };
    let known = KnownHost::load(&transaction, host).await?;
    transaction.commit().await?;
    Ok(known)
}

/// Refuses to archive from a log that cannot be worked with, naming the object and the cure (domain rule 10).
fn check_host(facts: &HostFacts) -> Result<()> {
    let refusal = findings(facts, HostLimits::default()).into_iter().find(|finding| finding.effect.refuses_archive());
    refusal.map_or(Ok(()), |finding| Err(finding.into()))
}

/// Refuses to archive more rows than the settings allow, unless the run is forced to; estimates how many there are.
async fn guard_rows(slice: &Slice<'_>, client: &mut Connection, facts: &HostFacts) -> Result<()> {
    let (run, limits) = (&slice.run, slice.engine.settings.limits());
    let cutoff = run.cutoff.naive_utc();
    if run.rows_estimated.is_some() {
        return Ok(());
    }
    if let Some(max_rows) = slice.engine.settings.max_archive_rows.filter(|_| !run.force) {
        let count = event_log::are_more_due_than(&**client, cutoff, &slice.engine.settings.keep_event_types, max_rows);
        // A quick look first. Many of them may be referenced, and stay.
        if slice.keep_lease_while(None, session::read(&*client, &slice.long_limits(), count)).await?
            && (facts.references.is_empty()
                || slice.keep_lease_while(None, count_due_rows(slice, client, facts)).await? > max_rows)
        {
            return Err(Error::TooManyRows { max_rows });
        }
    }
    let estimate = session::read(&*client, &limits, event_log::estimate_due_rows(&**client, cutoff)).await?;
    slice.record_on(client, &Change::RowsEstimated(estimate)).await
}

/// How many rows the run would archive.
async fn count_due_rows(slice: &Slice<'_>, client: &mut Connection, facts: &HostFacts) -> Result<u64> {
    let transaction = session::begin_read(client, &slice.long_limits(), IsolationLevel::RepeatableRead).await?;
    let columns = MirroredColumns::load(&transaction).await?;
    let former = former::find_archive(&transaction).await?;
    let cutoff = slice.run.cutoff.naive_utc();
    let has_hashes = event_log::has_due_hashes(&transaction, &columns, cutoff).await?;
    let due = Due { cutoff, has_hashes };
    let rules = Rules { due, kept_types: &slice.engine.settings.keep_event_types, former: former.as_ref() };
    let counted = remainder::count_due_rows(&transaction, facts, &columns, &rules).await?;
    Ok(counted.months.iter().map(|month| month.rows).sum())
}

/// Records the ids that all streams have now, where one is under legal hold: one that was given another id since the snapshots is
/// held all the same.
async fn record_held_ids(slice: &Slice<'_>, client: &mut Connection) -> Result<()> {
    if session::read(&*client, &slice.engine.settings.limits(), holds::list_holds(&**client)).await?.is_empty() {
        return Ok(());
    }
    let record = async {
        let transaction = session::begin(client, &slice.long_limits()).await?;
        stream_identity::observe_all(&transaction).await?;
        slice.commit(transaction, &Change::Alive).await
    };
    slice.keep_lease_while(None, record).await
}

/// What was done with a month's partition.
struct Loaded {
    /// It was made for these rows, and has no indexes.
    is_new: bool,
    /// Rows that came.
    moved: u64,
}

impl Loaded {
    /// Builds the indexes of a new partition, and brings its statistics up to date.
    async fn finish(self, client: &mut Connection, month: &ClaimedMonth<'_>) -> Work {
        if self.is_new {
            return month.build_indexes(client).await;
        }
        if self.moved > 0 {
            month.analyze(client).await?;
        }
        Ok(())
    }
}

impl<'a> Archiving<'a> {
    async fn new(slice: &'a Slice<'a>) -> Result<Self> {
        Self::prepare(slice, look_at_host(slice).await?).await
    }

    /// Finds out what decides which rows are due, on the `host` as it was just seen.
    async fn prepare(slice: &'a Slice<'a>, host: KnownHost) -> Result<Self> {
        let mut client = slice.engine.connect().await?;
        let limits = slice.engine.settings.limits();
        let cutoff = slice.run.cutoff.naive_utc();
        guard_rows(slice, &mut client, &host.host.facts).await?;
        record_held_ids(slice, &mut client).await?;
        // Looks at all rows where none has a hash.
        let look = event_log::has_due_hashes(&**client, &host.columns, cutoff);
        let has_hashes = slice.keep_lease_while(None, session::read(&client, &slice.long_limits(), look)).await?;
        let former = session::read(&client, &limits, former::find_archive(&**client)).await?;
        let before = seals::list_archived_before(&**client, slice.run.id);
        let archived_before = session::read(&client, &limits, before).await?;
        Ok(Self {
            slice,
            due: Due { cutoff, has_hashes },
            host: Mutex::new(Arc::new(host)),
            former,
            archived_before,
            started: Instant::now(),
            rows: AtomicU64::new(0),
            vacuumed: AtomicU64::new(0),
        })
    }
}

impl Archiving<'_> {
    async fn archive(&self) -> Work {
        let slice = self.slice;
        self.plan().await?;
        loop {
            self.archive_months().await?;
            self.in_time(self.check_links().await)?;
            self.vacuum().await?;
            // The last act: what is left now stays, each row for a reason that the run tells.
            let Remainder { mut held_back, unexplained, months } = self.in_time(self.count_remainder().await)?;
            if self.begin_again(&months).await? {
                slice.record(&Change::Phase(Phase::Archive)).await?;
                debug!(run = %slice.run.id, ?months, "snapshot maintenance: due logs are left and tried again");
                continue;
            }
            held_back.extend(unexplained);
            held_back.sort_by_key(|held| held.reason);
            return Ok(slice.record(&Change::Archived(&held_back)).await?);
        }
    }

    /// Notes the months that have due logs, and builds the indexes that a slice before did not come to.
    async fn plan(&self) -> Work {
        let slice = self.slice;
        let mut client = slice.engine.connect().await?;
        let limits = slice.engine.settings.limits();
        let columns = &self.known().columns;
        let mut after = event_log::first_instant();
        let mut months = Vec::new();
        loop {
            let find = event_log::find_next_due(&**client, columns, self.due, after);
            let Some(created_at) = session::read(&client, &limits, find).await? else { break };
            let month = Month::containing(created_at.and_utc());
            after = month.end();
            months.push(month);
        }
        if !months.is_empty() {
            note_months(slice, &mut client, &months, false).await?;
        }
        index_partitions(slice, &mut client).await
    }

    /// Goes through the months that are not done, several at a time.
    async fn archive_months(&self) -> Work {
        let slice = self.slice;
        let client = slice.engine.connect().await?;
        let left = self.list_months_left(&client).await?.len();
        drop(client);
        let workers = slice.engine.settings.workers.max(1).min(left);
        let at_work = AtomicUsize::new(workers);
        let workers = (0..workers).map(|_| async {
            let mut client = slice.engine.connect().await?;
            let result = self.work(&mut client, &at_work).await;
            at_work.fetch_sub(1, Ordering::Relaxed);
            if matches!(result, Err(Halt::Failed(_))) {
                slice.fail();
            }
            result
        });
        // All of them: one that fails does not cut off the others' batches.
        let halts = join_all(workers).await.into_iter().filter_map(Work::err);
        // An error goes before a reason to stop.
        halts.min_by_key(|halt| matches!(halt, Halt::Stop(_))).map_or(Ok(()), Err)
    }

    /// Claims month after month, until none has work that this run could do. `at_work` says how many workers do so.
    async fn work(&self, client: &mut Connection, at_work: &AtomicUsize) -> Work {
        while let Some(mut month) = month::claim(self.slice, client, None).await? {
            let loaded = self.move_rows(client, &mut month).await?;
            // While another worker builds an index, VACUUM would leave the rows that were moved since it began.
            let is_last = at_work.load(Ordering::Relaxed) == 1 && self.list_months_left(client).await?.is_empty();
            if is_last {
                let (finished, vacuumed) = join!(loaded.finish(client, &month), self.vacuum());
                finished?;
                vacuumed?;
            } else {
                loaded.finish(client, &month).await?;
            }
            month.release(client).await?;
        }
        Ok(())
    }

    /// The months of the run that have work left.
    async fn list_months_left(&self, client: &Connection) -> Result<Vec<Month>> {
        let left = run_months::list_months_left(&**client, self.slice.run.id);
        session::read(client, &self.slice.engine.settings.limits(), left).await
    }

    /// Vacuums `EventLog`, if rows were moved since it was.
    async fn vacuum(&self) -> Result<()> {
        let rows = self.rows();
        if self.vacuumed.swap(rows, Ordering::Relaxed) == rows {
            return Ok(());
        }
        self.slice.record(&Change::Phase(Phase::Vacuum)).await?;
        vacuum(self.slice).await
    }

    /// A `result` of one long statement. What ended because there was no more time is no failure: the next call does it.
    fn in_time<T>(&self, result: Result<T>) -> Work<T> {
        if result.as_ref().is_err_and(|error| error.retry().is_some()) {
            self.slice.check_time()?;
        }
        Ok(result?)
    }

    /// Looks for the parents that batches did not find among their own rows, also of a slice that ended before.
    async fn check_links(&self) -> Result<()> {
        let slice = self.slice;
        let mut client = slice.engine.connect().await?;
        let unchecked = links::list_unchecked_months(&**client);
        if session::read(&client, &slice.engine.settings.limits(), unchecked).await?.is_empty() {
            return Ok(());
        }
        let check = async {
            let transaction = session::begin(&mut client, &slice.long_limits()).await?;
            let missing = links::check_links(&transaction).await?;
            slice.commit(transaction, &Change::Alive).await?;
            Ok(missing)
        };
        let missing = slice.keep_lease_while(None, check).await?;
        if missing > 0 {
            slice.count_missing_links(missing);
            warn!(run = %slice.run.id, missing, "snapshot maintenance: logs were archived whose parent is nowhere");
        }
        Ok(())
    }

    /// Makes those of `months`, which have rows that nothing holds, be gone through once more. Returns whether there are any.
    async fn begin_again(&self, months: &[Month]) -> Result<bool> {
        if months.is_empty() {
            return Ok(false);
        }
        let slice = self.slice;
        let mut client = slice.engine.connect().await?;
        note_months(slice, &mut client, months, false).await?;
        let transaction = session::begin(&mut client, &slice.engine.settings.limits()).await?;
        let begun = run_months::begin_again(&transaction, slice.run.id, months).await?;
        slice.commit(transaction, &Change::Alive).await?;
        Ok(begun)
    }

    /// What is due and left, as of one instant, and why.
    async fn count_remainder(&self) -> Result<Remainder> {
        let (slice, known) = (self.slice, self.known());
        let mut client = slice.engine.connect().await?;
        let rules =
            Rules { due: self.due, kept_types: &slice.engine.settings.keep_event_types, former: self.former.as_ref() };
        let count = async {
            let limits = slice.long_limits();
            let transaction = session::begin_read(&mut client, &limits, IsolationLevel::RepeatableRead).await?;
            let columns = MirroredColumns::load(&transaction).await?;
            remainder::count_remainder(&transaction, &known.host.facts, &columns, &rules).await
        };
        slice.keep_lease_while(None, count).await
    }

    fn known(&self) -> Arc<KnownHost> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The log under the lock of `transaction`: until that ends nobody can change it. What was looked at before still holds where
    /// the definition has not changed; else it is looked at anew. Tables that reference the log are not locked.
    async fn look(&self, transaction: &Transaction<'_>) -> Result<Arc<KnownHost>> {
        let version = host::get_version(transaction).await?;
        let known = self.known();
        if version == known.host.version && known.host.facts.references.is_empty() {
            return Ok(known);
        }
        let known = Arc::new(KnownHost::load(transaction, host::see(transaction).await?).await?);
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = known.clone();
        Ok(known)
    }

    /// Moves the due rows of a month, oldest first, to its partition. A partition that is made for it gets its indexes when it is loaded:
    /// until then nothing but this looks for single rows in it.
    async fn move_rows(&self, client: &mut Connection, month: &mut ClaimedMonth<'_>) -> Work<Loaded> {
        let slice = self.slice;
        let is_new = self.make_partition(client, month).await?;
        if !is_new {
            // A slice before may have loaded it, and did not come to its indexes.
            let list = partitions::list_unindexed_partitions(&**client);
            let unindexed = session::read(client, &slice.engine.settings.limits(), list).await?;
            if unindexed.contains(&month.month()) {
                month.build_indexes(client).await?;
            }
        }
        let mut size = slice.batch_size();
        let mut moved = 0;
        while !month.progress.done {
            wait_while_busy(slice, client, Some(&month.lease)).await?;
            moved += attempt!(slice, size, |rows| self.archive_batch(client, month, is_new, rows));
            slice.check()?;
        }
        Ok(Loaded { is_new, moved })
    }

    /// Makes the partition of a month unless it is there. Returns whether it did.
    async fn make_partition(&self, client: &mut Connection, month: &ClaimedMonth<'_>) -> Work<bool> {
        let (slice, name, limits) = (self.slice, month.month(), self.slice.engine.settings.limits());
        if session::read(client, &limits, partitions::has_partition(&**client, name)).await? {
            return Ok(false);
        }
        let (known, mut size) = (self.known(), slice.batch_size());
        attempt!(slice, size, |_rows| async {
            let transaction = session::begin(client, &limits).await?;
            partitions::create_partition(&transaction, name, Some(&known.host.facts)).await?;
            month.commit(transaction, &MonthWork::PREPARED).await?;
            Ok(((), 0))
        });
        // A table of that name may be there and be no partition: rows in it would be lost to readers.
        if session::read(client, &limits, partitions::has_partition(&**client, name)).await? {
            Ok(true)
        } else {
            Err(Error::PartitionDetached { month: name.to_string() }.into())
        }
    }

    fn rules(&self) -> BatchRules<'_> {
        let Slice { run, engine, .. } = self.slice;
        BatchRules {
            due: self.due,
            kept_types: &engine.settings.keep_event_types,
            archived_before: &self.archived_before,
            started_at: run.started_at.naive_utc(),
            prove: engine.proves,
        }
    }

    /// Moves one batch, and settles what the archive has of it already, as one transaction. Returns how many rows it has moved, and how
    /// many it has seen.
    async fn archive_batch(
        &self,
        client: &mut Connection,
        month: &mut ClaimedMonth<'_>,
        is_new: bool,
        limit: u32,
    ) -> Result<(u64, u64)> {
        let start = LogPosition::before(month.month().start());
        let transaction = session::begin(client, &self.slice.engine.settings.limits()).await?;
        event_log::lock_columns(&transaction).await?;
        // Under the lock and for each batch: what the host changes between two batches is not overlooked.
        let known = self.look(&transaction).await?;
        let KnownHost { host, columns, form } = &*known;
        let log = LockedLog { facts: &host.facts, columns, form, former: self.former.as_ref() };
        // Once a month; exactly where a batch has failed, which may be because others are needed.
        let candidates = if let Some(candidates) = month.candidates.take() {
            candidates
        } else {
            let is_exact = std::mem::replace(&mut month.has_candidates, true);
            moving::list_candidates(&transaction, &log, month.month(), &self.rules(), is_exact).await?
        };
        let request = BatchRequest {
            rules: self.rules(),
            lease: &month.lease,
            candidates: &candidates,
            is_new,
            after: month.progress.after.as_ref().unwrap_or(&start),
            limit,
            most_named: if self.slice.has_room_for_findings() { moving::MAX_KEPT_FINDINGS } else { 0 },
        };
        let moved = moving::move_due_batch(&transaction, &log, &request).await?;
        let settled = moving::settle_duplicates(&transaction, &log, &request, &moved).await?;
        moving::check_holds(&transaction, &moved).await?;
        let mut next = month.progress.clone();
        next.after = moved.last.clone().or(next.after);
        next.moved += moved.moved + settled.dropped;
        // What is left of the month is locked or came too late: the look at the end finds it.
        next.done = moved.seen < u64::from(limit);
        let counts = ArchivedCounts {
            logs_archived: moved.moved,
            already_archived: settled.already_archived,
            duplicates_dropped: settled.dropped - settled.already_archived,
            hash_mismatches: moved.findings.hash_mismatches,
            completed_by_host: moved.findings.completed_by_host,
        };
        let rows = self.rows() + moved.moved + settled.dropped;
        let done = MonthWork {
            change: MonthChange::Archived(&next, counts),
            rows_per_second: self.rate(rows),
            mismatches: &moved.findings.named,
        };
        month.commit(transaction, &done).await?;
        self.rows.fetch_add(moved.moved + settled.dropped, Ordering::Relaxed);
        month.progress = next;
        month.candidates = Some(candidates);
        self.log(month.month(), &moved, &settled);
        Ok((moved.moved, moved.seen))
    }

    fn log(&self, month: Month, moved: &MovedBatch, settled: &Settled) {
        let (run, slice) = (self.slice.run.id, self.slice);
        let (rows, dropped) = (moved.moved, settled.dropped);
        debug!(%run, %month, rows, dropped, "snapshot maintenance: archive batch");
        let conflicts = settled.conflicts.len();
        if conflicts > 0 && slice.may_log() {
            let such_as = settled.conflicts.iter().take(10).collect::<Vec<_>>();
            warn!(%run, conflicts, ?such_as, "snapshot maintenance: logs whose archived copy differs stay in EventLog");
        }
        let mismatches = moved.findings.hash_mismatches;
        if mismatches > 0 && slice.may_log() {
            warn!(%run, %month, mismatches, "snapshot maintenance: entry hashes are not those of their rows");
        }
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Rows per second, once there are `rows`.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
    fn rate(&self, rows: u64) -> Option<f64> {
        (rows > 0).then(|| rows as f64 / self.started.elapsed().as_secs_f64().max(0.001))
    }
}
