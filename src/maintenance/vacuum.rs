use tracing::{info, warn};

use super::slice::Slice;
use crate::error::{Error, Result, chain};
use crate::store::{event_log, maintenance_runs, session};

/// Vacuums `EventLog` if the run moved rows and there is time. What is not done is left to autovacuum.
pub(super) async fn vacuum(slice: &Slice<'_>) -> Result<()> {
    let client = slice.engine.connect().await?;
    let find = maintenance_runs::find_run(&**client, slice.run.id);
    let run = session::read(&client, &slice.engine.settings.limits(), find).await?;
    if run.is_none_or(|run| run.rows() == 0) || slice.engine.deadline.has_come().is_some() {
        return Ok(());
    }
    let find = event_log::find_vacuumable(&**client);
    let Some(table) = session::read(&client, &slice.engine.settings.limits(), find).await? else {
        info!(run = %slice.run.id, "snapshot maintenance: EventLog is left to autovacuum, since it is another role's");
        return Ok(());
    };
    let vacuumed = tokio::select! {
        vacuumed = slice.keep_lease_while(None, event_log::vacuum(&**client, &table)) => Some(vacuumed),
        () = slice.engine.deadline.come() => None,
    };
    match vacuumed {
        Some(Ok(())) => info!(run = %slice.run.id, "snapshot maintenance: vacuumed"),
        Some(Err(error @ Error::LeaseLost { .. })) => return Err(error),
        // All rows are where they belong: the run is done without it.
        Some(Err(error)) => warn!(run = %slice.run.id, error = chain(&error), "snapshot maintenance: vacuum failed"),
        None => {
            info!(run = %slice.run.id, "snapshot maintenance: VACUUM takes longer than there is time, and goes on by itself");
            // The server ends it; the connection is of no use until then.
            drop(deadpool::managed::Object::take(client));
        }
    }
    Ok(())
}
