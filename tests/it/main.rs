//! The service against a real PostgreSQL, and its real Lambda binaries.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adoption;
mod agreement;
mod archive;
mod credentials;
mod doctor;
mod faults;
mod host_archive;
mod hosts;
mod identity;
mod lambda;
mod logging;
mod metrics;
mod migrations;
mod odd_rows;
mod pinning;
mod proof;
mod property;
mod reading;
mod restore;
mod roles;
mod runs;
mod snapshots;
mod state_machine;
mod steps;
mod support;
mod timeline;
mod tls;
mod types;
mod undo;
mod warm;
