//! The monthly work. `plan`: what it is about (pure). `engine`: what it works with, and why it halts. `run`: who owns a run, and its
//! phases. `snapshots`, `archive` and `restore`: the phases. `month`: a month under its lease. `slice`: what is committed, and when to stop.
//! `batch_size`, `throttle`: how hard to work. `dry_run`: looking only. `verify`: proving the archive. `steps`: a run in the hands of the
//! state machine.

mod archive;
mod batch_size;
mod deadline;
mod dry_run;
mod engine;
mod month;
mod plan;
mod restore;
pub(crate) mod run;
mod settings;
mod slice;
mod snapshots;
mod steps;
mod throttle;
mod vacuum;
mod verify;

pub use deadline::Deadline;
pub use plan::next_scheduled_run;
pub use settings::Settings;

pub(crate) use dry_run::{dry_run, dry_run_restore};
pub(crate) use engine::Engine;
pub(crate) use plan::Plan;
pub(crate) use steps::Steps;
pub(crate) use verify::verify;
