//! What the host's database looks like, and what of it refuses, holds or warns: pure; the look itself is in `store`.

mod facts;
mod finding;
mod wire;

pub(crate) use facts::{Command, HostFacts, HostTable, Reference, RelationKind, WireForm};
pub(crate) use finding::{HostLimits, findings};
