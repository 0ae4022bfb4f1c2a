//! All SQL, one file per noun; longer statements in `sql/`. Functions take any client, so that the same one runs inside
//! and outside a transaction. Statements are unnamed (`query_typed`): a named one would pin a pooler's connection.

pub(crate) mod archive_columns;
pub(crate) mod backlog;
mod decode;
mod error;
pub(crate) mod event_log;
pub(crate) mod events;
pub(crate) mod former;
pub(crate) mod holds;
pub(crate) mod host;
pub(crate) mod installation;
pub(crate) mod leases;
pub(crate) mod links;
pub(crate) mod maintenance_pause;
pub(crate) mod maintenance_runs;
pub(crate) mod migration_lock;
pub(crate) mod moving;
mod page;
pub(crate) mod partitions;
pub(crate) mod remainder;
pub(crate) mod restore;
pub(crate) mod roles;
pub(crate) mod rollback;
pub(crate) mod row_texts;
pub(crate) mod run_months;
pub(crate) mod seals;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod snapshots;
mod statement;
pub(crate) mod stream_history;
pub(crate) mod stream_identity;
pub(crate) mod verification;
