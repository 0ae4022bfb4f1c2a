//! The monthly work: what is to be done (`plan`, pure), how long it may take (`deadline`), and doing it (`run`).

mod deadline;
mod plan;
pub(crate) mod run;
mod settings;

pub use deadline::Deadline;
pub use plan::next_scheduled_run;
pub use settings::Settings;

pub(crate) use plan::Plan;
