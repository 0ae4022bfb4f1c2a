use tracing::warn;
use uuid::Uuid;

use super::SnapshotService;
use crate::error::{Error, Result};
use crate::model::{LegalHold, ReleaseRequest, StreamId};
use crate::store::{holds, session, stream_identity};

/// Restored logs that one transaction releases.
const RELEASE_ROWS: u32 = 50_000;

impl SnapshotService {
    /// Places a legal hold on a stream, named by any of its ids, known or not: its logs, under every contract id that it ever had
    /// or will have, are neither archived nor restored until it is released. A stream may have several, each for a reason. Returns
    /// the hold that is in force for `reason`, with a warning when nothing has such an id, and whether it is this one: one that was
    /// placed before stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] and the like; [`Error::Busy`] when a batch that is under way does not end soon.
    pub async fn hold_stream(&self, stream: &StreamId, reason: &str, by: &str) -> Result<(LegalHold, bool)> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.patient_limits()).await?;
        stream_identity::observe_stream(&transaction, stream).await?;
        let found = stream_identity::get_stream(&transaction, stream).await?;
        let is_known = stream_identity::is_known(&transaction, stream).await?;
        let is_new = holds::insert_hold(&transaction, &found, reason, by).await?;
        let holds = holds::list_holds_of(&transaction, &found).await?;
        transaction.commit().await?;
        // One that was in the way and was released just now.
        let hold = holds.into_iter().find(|hold| hold.reason == reason);
        let mut hold =
            hold.ok_or_else(|| Error::Busy { retry: None, source: "the hold was released meanwhile".into() })?;
        if !is_known {
            let warning =
                format!("no stream, log or snapshot has the id {stream}: if it is mistyped, release this hold");
            warn!(%stream, hold = %hold.id, "{warning}");
            hold.warning = Some(warning);
        }
        Ok((hold, is_new))
    }

    /// Ends the legal hold on a stream and returns it, or none when there was none; `hold` says which, where there are several.
    /// Who ended it and why is kept.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when there are several and none is named; as [`hold_stream`](Self::hold_stream).
    pub async fn release_hold(
        &self,
        stream: &StreamId,
        hold: Option<Uuid>,
        reason: &str,
        by: &str,
    ) -> Result<Option<LegalHold>> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.patient_limits()).await?;
        stream_identity::observe_stream(&transaction, stream).await?;
        let found = stream_identity::get_stream(&transaction, stream).await?;
        let mut holds = holds::list_holds_of(&transaction, &found).await?;
        holds.retain(|one| hold.is_none_or(|id| id == one.id));
        if holds.len() > 1 {
            let each: Vec<_> = holds.iter().map(|hold| format!("{} ({})", hold.id, hold.reason)).collect();
            return Err(Error::invalid("id", format!("must name one of the stream's holds: {}", each.join(", "))));
        }
        let Some(hold) = holds.pop() else {
            transaction.commit().await?;
            return Ok(None);
        };
        let released = holds::release_hold(&transaction, hold.id, reason, by).await?;
        transaction.commit().await?;
        Ok(released.then_some(hold))
    }

    /// The legal holds in force, oldest first.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn list_legal_holds(&self) -> Result<Vec<LegalHold>> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), holds::list_holds(&**client)).await
    }

    /// How many logs were restored and not released.
    ///
    /// # Errors
    ///
    /// As [`get_snapshot`](Self::get_snapshot).
    pub async fn count_restored_logs(&self) -> Result<u64> {
        let client = self.pool.get().await?;
        session::read(&client, &self.read_limits(), holds::count_restored(&**client)).await
    }

    /// Lets restored logs be archived again, and returns how many. Calling again continues.
    ///
    /// # Errors
    ///
    /// As [`hold_stream`](Self::hold_stream).
    pub async fn release_restored_logs(&self, request: &ReleaseRequest) -> Result<u64> {
        let contract_ids = match &request.stream {
            Some(stream) => {
                self.observe(stream).await?;
                Some(self.get_stream(stream).await?.contract_ids)
            }
            None => None,
        };
        let mut client = self.pool.get().await?;
        let mut released = 0;
        loop {
            let transaction = session::begin(&mut client, &self.patient_limits()).await?;
            let rows = holds::delete_restored(&transaction, contract_ids.as_deref(), request.run, RELEASE_ROWS).await?;
            transaction.commit().await?;
            released += rows;
            if rows < u64::from(RELEASE_ROWS) {
                return Ok(released);
            }
        }
    }

    /// Records the ids that the stream has now.
    pub(super) async fn observe(&self, stream: &StreamId) -> Result<()> {
        let mut client = self.pool.get().await?;
        let transaction = session::begin(&mut client, &self.patient_limits()).await?;
        stream_identity::observe_stream(&transaction, stream).await?;
        Ok(transaction.commit().await?)
    }
}
