use std::time::Duration;

use tracing::info;

use super::Settings;
use super::engine::Work;
use super::slice::Slice;
use crate::store::leases::{Change, MonthLease};
use crate::store::server::{ServerLoad, get_server_load};
use crate::store::session;
use crate::store::session::Connection;

/// How long a pause lasts before the load is looked at again.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits between two batches while the server or its replicas are busier than the settings allow, and keeps the lease of `month`
/// meanwhile.
pub(super) async fn wait_while_busy(slice: &Slice<'_>, client: &Connection, month: Option<&MonthLease>) -> Work {
    let settings = slice.engine.settings;
    if settings.max_replica_lag.is_none() && settings.max_active_sessions.is_none() {
        return Ok(());
    }
    let mut waited = false;
    loop {
        let load = session::read(client, &settings.limits(), get_server_load(&**client)).await?;
        let Some(reason) = excess(settings, &load) else { break };
        if !waited {
            info!(run = %slice.run.id, reason, "snapshot maintenance: waiting");
        }
        waited = true;
        slice.record(&Change::WaitingFor(Some(&reason))).await?;
        if month.is_some() {
            slice.renew(month).await?;
        }
        slice.check()?;
        // No batch is due to a call that may not work: its time is over when it is over.
        slice.check_time()?;
        slice.engine.deadline.sleep(PAUSE).await;
    }
    if waited {
        info!(run = %slice.run.id, "snapshot maintenance: going on");
        slice.record(&Change::WaitingFor(None)).await?;
    }
    Ok(())
}

/// Which limit is passed, in words.
fn excess(settings: &Settings, load: &ServerLoad) -> Option<String> {
    if let Some(max) = settings.max_replica_lag
        && load.replica_lag_seconds > max.as_secs_f64()
    {
        return Some(format!("a replica is {:.0} s behind, more than {} s", load.replica_lag_seconds, max.as_secs()));
    }
    if let Some(max) = settings.max_active_sessions
        && load.active_sessions > i64::from(max)
    {
        return Some(format!("{} sessions are active, more than {max}", load.active_sessions));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_waits_for_the_limit_that_is_passed_and_names_it() {
        let settings = Settings {
            max_replica_lag: Some(Duration::from_secs(10)),
            max_active_sessions: Some(5),
            ..Settings::default()
        };
        let load = |replica_lag_seconds, active_sessions| ServerLoad { replica_lag_seconds, active_sessions };
        assert_eq!(excess(&settings, &load(10.0, 5)), None);
        let lag = excess(&settings, &load(12.4, 0));
        assert_eq!(lag.as_deref(), Some("a replica is 12 s behind, more than 10 s"));
        let sessions = excess(&settings, &load(0.0, 6));
        assert_eq!(sessions.as_deref(), Some("6 sessions are active, more than 5"));
        assert_eq!(excess(&Settings::default(), &load(1e6, 1_000_000)), None, "off by default");
    }
}
