use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use tokio_postgres::{IsolationLevel, Transaction};
use tracing::{debug, info, warn};

use super::batch_size::BatchSize;
use super::engine::Work;
use super::slice::{Slice, attempt};
use super::throttle::wait_while_busy;
use crate::error::{Error, Fault, HostFinding, Result, Retry, chain};
use crate::host::{HostFacts, findings};
use crate::model::{MaintenanceRun, Phase, Scope};
use crate::store::leases::Change;
use crate::store::maintenance_runs::estimate_streams;
use crate::store::session::Connection;
use crate::store::snapshots::{
    SnapshotBatch, SnapshotRequest, StreamCounts, StreamForm, count_streams, find_stream_after, insert_snapshot_batch,
    may_be_complete, probe_column, wait_for_log,
};
use crate::store::{host, session};

/// Most streams of a batch: it takes a quarter of a second or so, which makes the cost of its transaction disappear, and a few ten
/// thousand streams are enough for all workers.
const MAX_STREAMS: u32 = 10_000;

/// Takes the month's snapshot of every stream that has none, or of every stream when the run is to retake them, several pages
/// of streams at a time. Ends when none is missing.
///
/// # Errors
///
/// [`Error::HostRefuses`] before anything is done, when the host's streams cannot be read as they are.
pub(super) async fn take_snapshots(slice: &Slice<'_>) -> Work {
    let run = &slice.run;
    let mut client = slice.engine.connect().await?;
    let limits = slice.engine.settings.limits();
    let source = Source::new(slice)?;
    let mut after = slice.state.last_stream.clone();
    let mut streams = run.streams;
    if after.is_none() {
        let may_be = session::read(&client, &limits, may_be_complete(&**client, run.snapshot_month)).await?;
        if may_be && is_complete(slice, &mut client, false).await? {
            return Ok(());
        }
        let estimate = session::read(&client, &limits, estimate_streams(&**client)).await?;
        slice.record_on(&mut client, &Change::StreamsEstimated(estimate)).await?;
    }
    drop(client);
    let workers = slice.engine.settings.workers.max(1);
    let mut sizes: Vec<_> = (0..workers).map(|_| slice.batch_size_up_to(MAX_STREAMS)).collect();
    let mut is_again = false;
    let (mut created, mut barren_rounds) = (0, 0);
    loop {
        let client = slice.engine.connect().await?;
        wait_while_busy(slice, &client, None).await?;
        let pages = divide(slice, &source, &client, after.clone(), &mut sizes).await?;
        drop(client);
        // All of them: one that fails does not cut off the others' batches.
        let results = join_all(pages.into_iter().map(|page| page.take(slice, &source))).await;
        let mut seen = 0;
        let mut is_end = false;
        for result in results {
            // What the others have taken is there, and found when the position comes to it.
            let page = result?;
            seen += page.seen;
            created += page.created;
            after = page.last_stream.or(after);
            is_end = page.is_end;
        }
        streams += seen;
        slice.record(&Change::StreamsSeen { streams, last_stream: after.as_deref() }).await?;
        if is_end {
            let mut client = slice.engine.connect().await?;
            if is_complete(slice, &mut client, is_again).await? {
                return Ok(());
            }
            // Streams were added meanwhile: behind the last one, as their ids usually are, or before it.
            if seen == 0 {
                barren_rounds = if created == 0 { barren_rounds + 1 } else { 0 };
                if barren_rounds > MAX_BARREN_ROUNDS {
                    return Err(Error::from(HostFinding::snapshots_refused()).into());
                }
                is_again = true;
                (after, streams, created) = (None, 0, 0);
                slice.record_on(&mut client, &Change::StreamsSeen { streams: 0, last_stream: None }).await?;
            }
        }
        slice.check()?;
    }
}

/// The host's tables, as the workers of a slice read them.
struct Source {
    /// What is in the place of `Stream`, as the last look saw it.
    form: Mutex<StreamForm>,
    /// Whether each snapshot can still be told which events it has. Nothing about `EventLog` keeps one from being taken, so
    /// it is given up at the first difficulty.
    reads_log: AtomicBool,
}

impl Source {
    /// What the slice has seen of the host when it began.
    fn new(slice: &Slice<'_>) -> Result<Self> {
        let facts = &slice.host.facts;
        let form = Mutex::new(read_form(slice, facts)?);
        let reads_log =
            facts.log.as_ref().is_some_and(|log| {
                log.may_read && ["id", "streamId", "createdAt"].iter().all(|name| log.has_column(name))
            }) && HostFinding::hidden_logs(facts).is_none();
        if !reads_log {
            warn!(run = %slice.run.id, "snapshot maintenance: EventLog cannot be read, so which events a snapshot has is not kept");
        }
        Ok(Self { form, reads_log: AtomicBool::new(reads_log) })
    }

    /// Looks at the columns of `Stream` again. Returns whether they are others than `form` has.
    async fn has_changed(&self, slice: &Slice<'_>, client: &Connection, form: &StreamForm) -> Result<bool> {
        let facts = session::read(client, &slice.engine.settings.limits(), host::look(&**client)).await?;
        let now = read_form(slice, &facts)?;
        let has_changed = now != *form;
        *self.form.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(has_changed)
    }

    fn form(&self) -> StreamForm {
        self.form.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reads_log(&self) -> bool {
        self.reads_log.load(Ordering::Relaxed)
    }

    fn give_up_log(&self, slice: &Slice<'_>, cause: &Error) {
        self.reads_log.store(false, Ordering::Relaxed);
        warn!(
            run = %slice.run.id, cause = chain(cause),
            "snapshot maintenance: EventLog cannot be read; from here on it is not kept which events a snapshot has",
        );
    }
}

/// How streams are to be read.
///
/// # Errors
///
/// [`Error::HostTableMissing`], and [`Error::HostRefuses`] where something keeps them from being read as they are.
fn read_form(slice: &Slice<'_>, facts: &HostFacts) -> Result<StreamForm> {
    let streams = facts.streams.as_ref().ok_or(Error::HostTableMissing { table: "Stream" })?;
    match findings(facts, slice.engine.settings.host_limits())
        .into_iter()
        .find(|finding| finding.effect.refuses_snapshots())
    {
        Some(finding) => Err(finding.into()),
        None => Ok(StreamForm::new(streams)),
    }
}

/// The streams that one worker takes at a time.
struct PageOfStreams<'s> {
    after: Option<String>,
    /// The last of them; `None` at the end of all pages, where nothing says how many follow.
    upto: Option<String>,
    size: &'s mut BatchSize,
}

/// How far a worker came with its page.
struct TakenPage {
    seen: u64,
    created: u64,
    /// `None` when there was no stream.
    last_stream: Option<String>,
    /// Whether no stream follows.
    is_end: bool,
}

/// A batch of a page, of how many streams at most, and whether these were fewer than a batch may have.
struct TakenBatch {
    batch: SnapshotBatch,
    rows: u32,
    is_narrow: bool,
}

/// A page for each worker, one behind the other, from `after` on; fewer where fewer streams are left.
async fn divide<'s>(
    slice: &Slice<'_>,
    source: &Source,
    client: &Connection,
    mut after: Option<String>,
    sizes: &'s mut [BatchSize],
) -> Result<Vec<PageOfStreams<'s>>> {
    let workers = sizes.len();
    let form = source.form();
    let mut pages = Vec::with_capacity(workers);
    for (worker, size) in sizes.iter_mut().enumerate() {
        let upto = if worker + 1 < workers {
            let find = find_stream_after(&**client, &form, after.as_deref(), size.rows());
            session::read(client, &slice.engine.settings.limits(), find).await?
        } else {
            None
        };
        pages.push(PageOfStreams { after, upto: upto.clone(), size });
        after = upto;
        if after.is_none() {
            break;
        }
    }
    Ok(pages)
}

impl PageOfStreams<'_> {
    /// Takes the page's snapshots, on a connection of its own. In more than one batch only when one took too long, or when
    /// something about one stream's row makes it fail.
    async fn take(self, slice: &Slice<'_>, source: &Source) -> Work<TakenPage> {
        let Self { mut after, upto, size } = self;
        let mut client = slice.engine.connect().await?;
        let (mut seen, mut created) = (0, 0);
        let mut last_stream = None;
        // Most streams of a batch, while one that fails is looked for.
        let mut narrowed = u32::MAX;
        loop {
            let stretch = |limit| Stretch { after: after.as_deref(), upto: upto.as_deref(), limit };
            let TakenBatch { batch, rows, is_narrow } =
                attempt!(slice, size, |limit| take_stretch(slice, source, &mut client, stretch(limit), &mut narrowed));
            let full = batch.seen >= u64::from(rows);
            narrowed = narrowed.saturating_mul(2);
            warn_of_unparsed(&slice.run, &batch);
            seen += batch.seen;
            created += batch.created;
            last_stream = batch.last_stream.or(last_stream);
            match (&upto, &last_stream) {
                (Some(upto), Some(last)) if full && last != upto => after = Some(last.clone()),
                // A batch of fewer streams than the page may have does not end it.
                (None, Some(last)) if full && is_narrow && seen < u64::from(size.rows()) => after = Some(last.clone()),
                _ => return Ok(TakenPage { seen, created, last_stream, is_end: upto.is_none() && !full }),
            }
            // A page of such rows takes long.
            if is_narrow {
                slice.check()?;
            }
        }
    }
}

/// Takes the snapshots of a stretch, or of fewer streams, `narrowed`, while one that fails is looked for. Returns what was taken, and how
/// many streams were seen.
async fn take_stretch(
    slice: &Slice<'_>,
    source: &Source,
    client: &mut Connection,
    whole: Stretch<'_>,
    narrowed: &mut u32,
) -> Result<(TakenBatch, u64)> {
    let taken = |batch: SnapshotBatch, rows, is_narrow| {
        let seen = batch.seen;
        Ok((TakenBatch { batch, rows, is_narrow }, seen))
    };
    loop {
        let rows = whole.limit.min(*narrowed);
        let form = source.form();
        let stretch = Stretch { limit: rows, ..whole };
        let error = match take_batch(slice, source, &form, client, &stretch).await {
            Ok(batch) => return taken(batch, rows, rows < whole.limit),
            Err(error) => error,
        };
        if is_of_columns(&error) && source.has_changed(slice, client, &form).await? {
            continue;
        }
        if !is_of_data(&error) {
            return Err(error);
        }
        if rows == 1 {
            return taken(take_what_can_be_had(slice, source, client, &stretch, error).await?, rows, true);
        }
        debug!(run = %slice.run.id, rows, cause = chain(&error), "snapshot maintenance: a batch is halved");
        *narrowed = rows / 2;
    }
}

/// Whether something about the rows made a statement fail, so that others may go.
fn is_of_data(error: &Error) -> bool {
    matches!(error, Error::Database { fault: Fault::Rows, .. })
}

/// Whether a statement failed because a column is not what it was.
fn is_of_columns(error: &Error) -> bool {
    matches!(error, Error::Database { fault: Fault::Columns, .. } | Error::NotMigrated(_))
}

/// Whether `EventLog` may be what made a statement fail that reads it beside `Stream`.
fn may_be_of_log(error: &Error) -> bool {
    matches!(error, Error::Database { .. } | Error::NotMigrated(_) | Error::NotPermitted(_))
        || error.retry() == Some(Retry::Smaller)
}

/// The streams that one batch takes.
#[derive(Clone, Copy)]
struct Stretch<'a> {
    after: Option<&'a str>,
    upto: Option<&'a str>,
    limit: u32,
}

/// Takes the snapshots of a stretch, each with the events that it has as long as these can be read.
async fn take_batch(
    slice: &Slice<'_>,
    source: &Source,
    form: &StreamForm,
    client: &mut Connection,
    stretch: &Stretch<'_>,
) -> Result<SnapshotBatch> {
    if !source.reads_log() {
        return commit_batch(slice, form, client, stretch).await;
    }
    let transaction = session::begin(client, &slice.engine.settings.limits()).await?;
    // By itself: who has locked the log does not make the batch fail, which waits for nothing else of it.
    if let Err(error) = wait_for_log(&transaction).await {
        drop(transaction);
        if !may_be_of_log(&error) {
            return Err(error);
        }
        source.give_up_log(slice, &error);
        return commit_batch(slice, form, client, stretch).await;
    }
    let error = match insert(slice, form, true, &transaction, stretch).await {
        Ok(batch) => match host::refuse_hidden_logs(&transaction, batch.log_is_filtered).await {
            Ok(()) => return commit(slice, transaction, batch).await,
            Err(error) => error,
        },
        Err(error) => error,
    };
    drop(transaction);
    let is_hidden = error.finding().is_some_and(|finding| !finding.effect.refuses_snapshots());
    if !is_hidden && !may_be_of_log(&error) {
        return Err(error);
    }
    // What fails without the log as well is not the log's.
    let batch = commit_batch(slice, form, client, stretch).await?;
    source.give_up_log(slice, &error);
    Ok(batch)
}

/// Takes the snapshots of a stretch without looking at `EventLog`.
async fn commit_batch(
    slice: &Slice<'_>,
    form: &StreamForm,
    client: &mut Connection,
    stretch: &Stretch<'_>,
) -> Result<SnapshotBatch> {
    let transaction = session::begin(client, &slice.engine.settings.limits()).await?;
    let batch = insert(slice, form, false, &transaction, stretch).await?;
    commit(slice, transaction, batch).await
}

async fn insert(
    slice: &Slice<'_>,
    form: &StreamForm,
    reads_log: bool,
    transaction: &Transaction<'_>,
    stretch: &Stretch<'_>,
) -> Result<SnapshotBatch> {
    let run = &slice.run;
    let request = SnapshotRequest {
        month: run.snapshot_month,
        after: stretch.after,
        upto: stretch.upto,
        limit: stretch.limit,
        started_at: run.started_at.naive_utc(),
        // A clock may be behind the one that the run was started by.
        taken_at: slice.engine.now().max(run.started_at).naive_utc(),
        refresh: run.refresh,
        by_keys: form.is_unique() && (!reads_log || has_time_index(&slice.host.facts)),
    };
    insert_snapshot_batch(transaction, form, reads_log, &request).await
}

/// Whether logs are found by their time.
fn has_time_index(facts: &HostFacts) -> bool {
    facts.log.as_ref().is_some_and(|log| log.has_time_index)
}

async fn commit(slice: &Slice<'_>, transaction: Transaction<'_>, batch: SnapshotBatch) -> Result<SnapshotBatch> {
    if batch.seen == 0 {
        return Ok(batch);
    }
    slice.commit(transaction, &Change::Snapshots { created: batch.created, unparsed: batch.unparsed }).await?;
    debug!(run = %slice.run.id, seen = batch.seen, created = batch.created, "snapshot maintenance: snapshot batch");
    Ok(batch)
}

/// Takes the snapshot of the one stream of a stretch whose row cannot be read as a whole, because of `error`: without the
/// columns that cannot be, else without the state, else with nothing but its id. Nobody else loses the month for it.
async fn take_what_can_be_had(
    slice: &Slice<'_>,
    source: &Source,
    client: &mut Connection,
    stretch: &Stretch<'_>,
    error: Error,
) -> Result<SnapshotBatch> {
    let limits = slice.engine.settings.limits();
    let form = source.form();
    let find = find_stream_after(&**client, &form, stretch.after, 1);
    let Some(stream) = session::read(&*client, &limits, find).await? else { return Err(error) };
    let mut left_out = Vec::new();
    for name in form.list_columns() {
        match session::read(&*client, &limits, probe_column(&**client, &form, name, &stream)).await {
            Err(error) if is_of_data(&error) => left_out.push(name.to_owned()),
            probed => probed?,
        }
    }
    warn!(
        run = %slice.run.id, stream, ?left_out, cause = chain(&error),
        "snapshot maintenance: a stream's row cannot be read as a whole; its snapshot has what can be",
    );
    let all: Vec<_> = form.list_columns().map(str::to_owned).collect();
    let readable = form.without(&left_out);
    let mut last = error;
    for form in [&readable, &readable.without_state(), &form.without(&all), &form.without(&all).without_state()] {
        match take_batch(slice, source, form, client, stretch).await {
            Err(error) if is_of_data(&error) => last = error,
            taken => return taken,
        }
    }
    Err(last)
}

/// How often all streams are gone through without a snapshot written while some have none: they may just have been added.
const MAX_BARREN_ROUNDS: u32 = 2;

/// Whether every stream has its snapshot and its ids are remembered. When so, the phase ends with the number of streams. That ids are
/// not recorded as they are begins it again once: two rows of one id can never both be.
async fn is_complete(slice: &Slice<'_>, client: &mut Connection, is_again: bool) -> Work<bool> {
    let run = &slice.run;
    let since = run.refresh.then(|| run.started_at.naive_utc());
    // Over all streams at once, so not bounded as a batch is.
    let count = async {
        let transaction = session::begin_read(client, &slice.long_limits(), IsolationLevel::RepeatableRead).await?;
        count_streams(&transaction, run.snapshot_month, since).await
    };
    let counts = match slice.keep_lease_while(None, count).await {
        Err(error) if error.retry().is_some() => {
            // There was no time to count.
            slice.check_time()?;
            return Err(error.into());
        }
        counts => counts?,
    };
    let StreamCounts { streams, without_id, without_snapshot, unremembered } = counts;
    if without_snapshot > 0 || (unremembered > 0 && !is_again) {
        return Ok(false);
    }
    if unremembered > 0 {
        warn!(run = %run.id, streams = unremembered, "snapshot maintenance: ids of streams cannot be recorded as they are");
    }
    if without_id > 0 {
        let finding = HostFinding::streams_without_id(without_id);
        finding.log(Some(run.id));
        slice.note_on(client, &finding).await?;
    }
    info!(run = %run.id, month = %run.snapshot_month, streams, "snapshot maintenance: snapshots are complete");
    let next = (run.scope == Scope::Maintenance).then_some(Phase::Archive);
    slice.record_on(client, &Change::SnapshotsComplete { streams, next }).await?;
    Ok(true)
}

fn warn_of_unparsed(run: &MaintenanceRun, batch: &SnapshotBatch) {
    if batch.unparsed > 0 {
        warn!(
            run = %run.id,
            streams = batch.unparsed,
            such_as = ?batch.unparsed_streams,
            "snapshot maintenance: amounts that are not an integer of at most 39 digits; their snapshots have none",
        );
    }
}
