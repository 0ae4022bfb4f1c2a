//! What a function logs: JSON lines, each with the ids of the invocation during which it is logged. `lambda_runtime`
//! opens a span with these around each invocation, but lines of tasks that were spawned, such as a connection's, are in
//! no span, and where less than `info` is logged there is none. An execution environment handles one event at a time,
//! so each line is of the one that is being handled. (At `trace` the runtime also tells how it fetches events.)

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogSettings;

/// The span that `lambda_runtime` opens around each invocation, and where.
const SPAN: &str = "Lambda runtime invoke";
const SPAN_TARGET: &str = "lambda_runtime::layers::trace";

static CURRENT: Mutex<Option<Invocation>> = Mutex::new(None);

/// The event that is being handled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Invocation {
    span: u64,
    request_id: Option<String>,
    trace_id: Option<String>,
}

impl Invocation {
    /// The names and values of its ids, as lines have them.
    pub(crate) fn ids(&self) -> [(&'static str, Option<&str>); 2] {
        [("requestId", self.request_id.as_deref()), ("xrayTraceId", self.trace_id.as_deref())]
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
    // The span is needed whatever is logged.
    let filter = filter.with_default(level).with_target(SPAN_TARGET, LevelFilter::TRACE);
    // What is signed has the session's token in it, which nobody may read.
    let filter = filter.with_target("aws_sigv4", LevelFilter::INFO.min(level));
    let subscriber = tracing_subscriber::registry().with(filter).with(Invocations);
    let lines = tracing_subscriber::fmt::layer();
    if settings.json {
        // The time is Lambda's condition for going by a line's level. The span's fields are on the line anyway.
        let format = Format::default().json().with_target(false).with_current_span(false).with_span_list(false);
        subscriber.with(lines.fmt_fields(JsonFields::new()).event_format(Stamped(format))).init();
    } else {
        subscriber.with(lines.with_target(false).without_time()).init();
    }
}

/// Notices which invocation is being handled.
struct Invocations;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Invocations {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _context: Context<'_, S>) {
        if is_invocation(attributes.metadata()) {
            let mut invocation = Invocation { span: id.into_u64(), ..Invocation::default() };
            attributes.record(&mut invocation);
            *current() = Some(invocation);
        }
    }

    fn on_close(&self, id: Id, _context: Context<'_, S>) {
        // A span may outlast its invocation, in a task.
        current().take_if(|invocation| invocation.span == id.into_u64());
    }
}

fn is_invocation(metadata: &Metadata<'_>) -> bool {
    metadata.name() == SPAN && metadata.target() == SPAN_TARGET
}

impl Visit for Invocation {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "requestId" => self.request_id = Some(value.to_owned()),
            "xrayTraceId" => self.trace_id = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
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
        for (name, id) in current_invocation().unwrap_or_default().ids() {
            if let Some(id) = id {
                write!(writer, ",\"{name}\":{}", serde_json::Value::from(id))?;
            }
        }
        writeln!(writer, "}}")
    }
}
