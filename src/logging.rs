//! What a function logs: JSON lines, each with the ids of the invocation during which it is logged. An execution environment handles
//! one event at a time, so each line is of the one that is being handled, whichever task logs it. (At `trace` the runtime also tells how
//! it fetches events.)

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogSettings;

static CURRENT: Mutex<Option<Invocation>> = Mutex::new(None);

/// An event that a function handles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// The id that Lambda gives it.
    pub request_id: String,
    /// The id of its trace, if it has one.
    pub trace_id: Option<String>,
}

impl Invocation {
    /// Begins to handle the event: each line has the ids of the invocation, until what this returns is dropped.
    pub fn begin(self) -> Handling {
        *current() = Some(self);
        Handling
    }

    /// The names and values of its ids, as lines have them.
    pub(crate) fn ids(&self) -> [(&'static str, Option<&str>); 2] {
        [("requestId", Some(&self.request_id)), ("xrayTraceId", self.trace_id.as_deref())]
    }
}

/// An event is being handled.
#[derive(Debug)]
pub struct Handling;

impl Drop for Handling {
    fn drop(&mut self) {
        *current() = None;
    }
}

/// The event that is being handled, or none.
pub(crate) fn current_invocation() -> Option<Invocation> {
    current().clone()
}

fn current() -> std::sync::MutexGuard<'static, Option<Invocation>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Logs to stdout from here on. To be called once.
pub fn init(settings: &LogSettings) {
    let wanted: Targets = settings.filter.parse().unwrap_or_default();
    let level = wanted.default_level().unwrap_or(LevelFilter::INFO);
    // What the client does that fetches events belongs to none: it is logged where somebody asks for it by name.
    let filter = Targets::new().with_target("hyper_util", LevelFilter::INFO.min(level)).with_targets(wanted);
    let filter = filter.with_default(level);
    // What is signed has the session's token in it, which nobody may read.
    let filter = filter.with_target("aws_sigv4", LevelFilter::INFO.min(level));
    let subscriber = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer();
    if settings.json {
        // The time is Lambda's condition for going by a line's level.
        let format = Format::default().json().with_target(false).with_current_span(false).with_span_list(false);
        subscriber.with(lines.fmt_fields(JsonFields::new()).event_format(Stamped(format))).init();
    } else {
        subscriber.with(lines.with_target(false).without_time()).init();
    }
}

/// JSON lines that end with the ids of the invocation.
struct Stamped(Format<Json>);

impl<S, N> FormatEvent<S, N> for Stamped
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(line.strip_suffix("}\n").unwrap_or(&line))?;
        let invocation = current_invocation();
        for (name, id) in invocation.iter().flat_map(Invocation::ids) {
            if let Some(id) = id {
                write!(writer, ",\"{name}\":{}", serde_json::Value::from(id))?;
            }
        }
        writeln!(writer, "}}")
    }
}
