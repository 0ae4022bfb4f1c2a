//! A month in the hands of one worker. Workers, slices of the state machine and restores all claim months the same way: whoever finds one
//! that has work gets its lease, and nobody else moves its rows meanwhile.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Transaction;
use tracing::{debug, warn};

use super::engine::Work;
use super::slice::{MonthWork, Slice};
use crate::error::{Result, chain};
use crate::model::Month;
use crate::store::leases::{self, Change, MonthClaim, MonthLease};
use crate::store::run_months::{self, MonthProgress};
use crate::store::seals::LedgerRange;
use crate::store::session::Connection;
use crate::store::{partitions, session};

/// How often the indexes of a partition are tried to be built, when somebody else's lock is in the way.
const MAX_INDEX_ATTEMPTS: u32 = 3;
/// How long a worker waits before it asks again for a month that another run holds.
const PAUSE: Duration = Duration::from_secs(1);

/// A month under its lease, and how far the run is with it.
#[derive(Debug)]
pub(super) struct ClaimedMonth<'a> {
    pub(super) slice: &'a Slice<'a>,
    pub(super) lease: MonthLease,
    pub(super) progress: MonthProgress,
    /// Months that may hold its events under other ids, once that is known.
    pub(super) candidates: Option<Vec<LedgerRange>>,
    /// Whether they were listed before.
    pub(super) has_candidates: bool,
}

/// Claims the next month that has work, or `only` this one. Waits for months that other runs hold.
pub(super) async fn claim<'a>(
    slice: &'a Slice<'a>,
    client: &mut Connection,
    only: Option<Month>,
) -> Work<Option<ClaimedMonth<'a>>> {
    let mut is_waiting = false;
    loop {
        slice.check()?;
        match try_claim(slice, client, only).await? {
            MonthClaim::Claimed(lease, progress) => {
                if is_waiting {
                    slice.record(&Change::WaitingFor(None)).await?;
                }
                return Ok(Some(ClaimedMonth { slice, lease, progress, candidates: None, has_candidates: false }));
            }
            MonthClaim::None if is_waiting => {
                slice.record(&Change::WaitingFor(None)).await?;
                return Ok(None);
            }
            MonthClaim::None => return Ok(None),
            MonthClaim::Held => {}
        }
        slice.check_time()?;
        slice.record(&Change::WaitingFor(Some("another run works on the month"))).await?;
        is_waiting = true;
        slice.engine.deadline.sleep(PAUSE).await;
    }
}

async fn try_claim(slice: &Slice<'_>, client: &mut Connection, only: Option<Month>) -> Result<MonthClaim> {
    let transaction = session::begin(client, &slice.engine.settings.limits()).await?;
    let claim = leases::claim_month(&transaction, &slice.lease, slice.lease_seconds(), only).await?;
    transaction.commit().await?;
    Ok(claim)
}

/// Builds the indexes that partitions lack, because the slice that loaded them ended before. A partition that somebody else works on is
/// left to its worker.
pub(super) async fn index_partitions(slice: &Slice<'_>, client: &mut Connection) -> Work {
    let list = partitions::list_unindexed_partitions(&**client);
    let unindexed = session::read(client, &slice.engine.settings.limits(), list).await?;
    if unindexed.is_empty() {
        return Ok(());
    }
    note_months(slice, client, &unindexed, true).await?;
    for month in unindexed {
        if let MonthClaim::Claimed(lease, progress) = try_claim(slice, client, Some(month)).await? {
            let month = ClaimedMonth { slice, lease, progress, candidates: None, has_candidates: false };
            month.build_indexes(client).await?;
            month.release(client).await?;
        }
        slice.check()?;
    }
    Ok(())
}

/// Notes the months that the run works on; `done` where it only looks after them.
pub(super) async fn note_months(
    slice: &Slice<'_>,
    client: &mut Connection,
    months: &[Month],
    done: bool,
) -> Result<()> {
    let transaction = session::begin(client, &slice.engine.settings.limits()).await?;
    run_months::plan_months(&transaction, slice.run.id, months, done).await?;
    slice.commit(transaction, &Change::Alive).await
}

impl ClaimedMonth<'_> {
    pub(super) fn month(&self) -> Month {
        self.lease.month
    }

    /// Commits `transaction`, which has worked on the month, and renews the lease.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::Error::LeaseLost), and then nothing is committed.
    pub(super) async fn commit(&self, transaction: Transaction<'_>, done: &MonthWork<'_>) -> Result<()> {
        self.slice.commit_month(transaction, &self.lease, done).await
    }

    /// Builds what the month's partition lacks of its indexes, each in a transaction of its own, and brings its statistics up to date.
    pub(super) async fn build_indexes(&self, client: &mut Connection) -> Work {
        let (slice, month) = (self.slice, self.month());
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let build = async {
                let transaction = session::begin(client, &slice.long_limits()).await?;
                let built = partitions::build_next_index(&transaction, month).await?;
                self.commit(transaction, &MonthWork::PREPARED).await?;
                Ok(built)
            };
            match slice.keep_lease_while(Some(&self.lease), build).await {
                Ok(true) => {
                    slice.set_worked();
                    let milliseconds = started.elapsed().as_millis();
                    debug!(run = %slice.run.id, %month, milliseconds, "snapshot maintenance: index built");
                }
                Ok(false) => break,
                Err(error) if error.retry().is_none() => return Err(error.into()),
                Err(error) => {
                    slice.check_time()?;
                    failures += 1;
                    if failures == MAX_INDEX_ATTEMPTS {
                        return Err(error.into());
                    }
                    warn!(run = %slice.run.id, %month, error = chain(&error), "snapshot maintenance: indexing is tried again");
                }
            }
        }
        Ok(self.analyze(client).await?)
    }

    /// Brings the statistics of the month's partition up to date. All rows are where they belong: it may fail.
    pub(super) async fn analyze(&self, client: &mut Connection) -> Result<()> {
        let (slice, month) = (self.slice, self.month());
        let analyze = async {
            let transaction = session::begin(client, &slice.long_limits()).await?;
            partitions::analyze_partition(&transaction, month).await?;
            self.commit(transaction, &MonthWork::PREPARED).await
        };
        match slice.keep_lease_while(Some(&self.lease), analyze).await {
            Err(error) if error.retry().is_some() => {
                warn!(run = %slice.run.id, %month, error = chain(&error), "snapshot maintenance: a partition is not analysed");
                Ok(())
            }
            result => result,
        }
    }

    /// Gives the lease back.
    pub(super) async fn release(self, client: &mut Connection) -> Result<()> {
        // A crash may lose it: whoever continues the run revokes the lease.
        let transaction = session::begin_volatile(client, &self.slice.engine.settings.limits()).await?;
        leases::release_month(&transaction, &self.lease).await?;
        Ok(transaction.commit().await?)
    }
}
