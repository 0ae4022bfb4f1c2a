//! Monthly snapshots and an event archive for payment streams, over PostgreSQL.
//!
//! - [`SnapshotService`] has the operations: taking snapshots, archiving logs, reading both.
//! - [`database`] reaches PostgreSQL and brings the service's tables up to date.
//! - [`http`] answers API Gateway's requests; the Lambda binaries in `src/bin` only wire it up.
//! - [`invocation`] does what EventBridge and deployments ask for.
//! - [`state_machine`] continues what one invocation cannot end.
//! - [`config`] is what the environment may say; [`logging`] and [`metrics`] are what the functions write to stdout.
//!
//! # Example
//!
//! ```
//! use chrono::Utc;
//! use snapshot_service::{ArchiveFilter, Deadline, Month, PageRequest, Settings, SnapshotService, StreamId, Trigger, database};
//!
//! # async fn example(url: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let pool = database::connect_pool(&url.parse()?, "example", 4).await?;
//! database::migrate(&pool).await?;
//! let service = SnapshotService::new(pool, Settings::default());
//!
//! // The monthly work, in two steps or as one. Each can be stopped, killed and repeated at will.
//! let now = Utc::now();
//! let snapshots = service.create_monthly_snapshots(Trigger::Api, now, &Deadline::never()).await?;
//! let archive = service.archive_old_logs(Trigger::Api, now, &Deadline::never()).await?;
//! let both = service.run_maintenance(Trigger::Cli.request(), now, &Deadline::never()).await?;
//! assert!(snapshots.complete && archive.complete && both.complete);
//! assert_eq!(both.snapshots_created + both.logs_archived, 0, "it was all done");
//!
//! // A stream's history, by any of its ids.
//! let stream = StreamId::new("42")?;
//! let snapshot = service.get_snapshot(&stream, Month::containing(now)).await?;
//! assert_eq!(snapshot.expect("just taken").total_amount.as_deref(), Some("340282366920938463463"));
//! let page = service.get_stream_snapshots(&stream, &PageRequest::first()).await?;
//! assert_eq!(page.items.len(), 1);
//! let logs = service.get_archived_logs(&stream, &ArchiveFilter::default(), &PageRequest::first()).await?;
//! assert_eq!(logs.items[0].event_type, "create");
//! # Ok(())
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #     // The example runs on a PostgreSQL of its own, with the host's tables, one stream and one old event.
//! #     let server = local_postgres::Server::start_ephemeral(&local_postgres::Options::default())?;
//! #     let url = server.url("postgres");
//! #     tokio::runtime::Runtime::new()?.block_on(async {
//! #         let pool = database::connect_pool(&url.parse()?, "doctest", 1).await?;
//! #         pool.get().await?.batch_execute(include_str!("../tools/snapshots/src/host-schema.sql")).await?;
//! #         pool.get().await?.batch_execute(r#"
//! #             INSERT INTO "Stream" (id, "streamId", "txHash", sender, receiver, amount, duration)
//! #             VALUES ('clx1', '42', 't', 's', 'r', '340282366920938463463', 60);
//! #             INSERT INTO "EventLog" (id, "eventType", "streamId", "txHash", ledger, "ledgerClosedAt", "createdAt")
//! #             VALUES ('e1', 'create', '42', 't', 1, 'then', '2020-01-01')"#).await?;
//! #         example(&url).await
//! #     })
//! # }
//! ```

mod aws;
pub mod config;
pub mod database;
mod error;
mod host;
pub mod http;
pub mod invocation;
pub mod logging;
mod maintenance;
pub mod metrics;
mod model;
mod service;
pub mod state_machine;
mod store;

pub use aws::AwsConfig;
pub use config::{Config, LogSettings};
pub use error::{ConfigError, Error, Fault, FindingEffect, HostFinding, Result, Retry};
pub use maintenance::{Deadline, Settings, next_scheduled_run};
pub use model::{
    ArchiveFilter, ArchivePosition, ArchivedMonth, BacklogReport, Boundary, Break, BreakKind, ConflictDetail,
    ContractId, Cursor, DryRunReport, DueMonth, EventPosition, Finding, FindingKind, HeldBack, HeldBackReason,
    LegalHold, ListPosition, LoggedEvent, MaintenancePause, MaintenanceRequest, MaintenanceRun, Month, Page,
    PageRequest, Phase, ReleaseRequest, RestorableMonth, RestoreDryRunReport, RestoreRequest, RestoreTarget,
    RunPosition, RunStatus, Scope, SliceOutcome, SliceReport, SnapshotPosition, StatePosition, Step, StepError,
    StepEvent, StepReport, StepRequest, StopReason, StreamEvent, StreamId, StreamNames, StreamSnapshot, StreamState,
    Tier, Trigger, TriggerKind, Verification, VerificationRequest, VerificationStatus,
};
pub use service::SnapshotService;
