//! What readers ask for: a stream's snapshots, logs, events and past states.

use chrono::{DateTime, Utc};
use serde::Serialize;
use snapshot_service::{
    ArchiveFilter, Cursor, ListPosition, LoggedEvent, Month, Page, PageRequest, StreamEvent, StreamId, StreamSnapshot,
    Tier,
};

use crate::Result;
use crate::operate;
use crate::output::{Output, or_dash, table, time};
use crate::progress::print_line;

pub(crate) fn stream_id(text: &str) -> snapshot_service::Result<StreamId> {
    StreamId::new(text)
}

/// A time in RFC 3339.
pub(crate) fn instant(text: &str) -> std::result::Result<DateTime<Utc>, &'static str> {
    // Not DateTime's FromStr, which takes much more.
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    time.map_err(|_| "must be a time in RFC 3339, such as 2026-01-31T00:00:00Z")
}

/// Which part of a list.
#[derive(clap::Args)]
pub(crate) struct PageOptions {
    /// Most rows
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Where the page before ended: what it said
    #[arg(long)]
    cursor: Option<String>,
}

impl PageOptions {
    pub(crate) fn request<P: ListPosition>(&self, stream: Option<&StreamId>) -> Result<PageRequest<P>> {
        let cursor = self.cursor.as_deref().map(|text| Cursor::decode(text, stream)).transpose()?;
        Ok(PageRequest::new(self.limit, cursor)?)
    }
}

/// Which events.
#[derive(clap::Args)]
pub(crate) struct Filter {
    /// Created at this time or later, such as 2026-01-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<DateTime<Utc>>,
    /// Created before this time
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: Option<DateTime<Utc>>,
    /// Of this type, such as withdraw
    #[arg(long)]
    event_type: Option<String>,
}

impl Filter {
    fn parse(self) -> Result<ArchiveFilter> {
        Ok(ArchiveFilter::new(self.from, self.to, self.event_type)?)
    }
}

#[derive(clap::Args)]
pub(crate) struct List {
    /// The stream, by any of its ids
    #[arg(value_parser = stream_id)]
    stream: StreamId,
    #[command(flatten)]
    page: PageOptions,
}

#[derive(clap::Args)]
pub(crate) struct Get {
    /// The stream, by any of its ids
    #[arg(value_parser = stream_id)]
    stream: StreamId,
    /// The month, as YYYY-MM
    month: Month,
}

#[derive(clap::Args)]
pub(crate) struct Events {
    /// The stream, by any of its ids
    #[arg(value_parser = stream_id)]
    stream: StreamId,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    page: PageOptions,
}

#[derive(clap::Args)]
pub(crate) struct State {
    /// The stream, by any of its ids
    #[arg(value_parser = stream_id)]
    stream: StreamId,
    /// The time, inclusive, such as 2026-01-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: DateTime<Utc>,
    #[command(flatten)]
    page: PageOptions,
}

/// A part of a list, or something with one in it, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<T, C> {
    data: T,
    next_cursor: Option<C>,
    /// Rows that are on no page.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Prints a page, and says how to go on where there is more; `nothing` where it is empty.
pub(crate) fn print_page<T: Serialize, P: ListPosition>(
    output: Output,
    page: Page<T, P>,
    nothing: &str,
    text: impl FnOnce(&[T]) -> String,
) -> Result<()> {
    let Page { items: data, next_cursor, left_out } = page;
    let next_cursor = next_cursor.as_ref().map(Cursor::encode);
    let listed = Listed { data, next_cursor, left_out };
    let human = || if listed.data.is_empty() { nothing.into() } else { text(&listed.data) };
    output.print(&listed, human)?;
    if let Some(cursor) = &listed.next_cursor {
        output.say(&format!("there are more: --cursor {cursor}"));
    }
    if left_out > 0 {
        print_line(&format!(
            "warning: {left_out} events are on no page: their time is infinite, before the year 1 or after 9999"
        ));
    }
    Ok(())
}

/// A stream's snapshots, newest month first.
pub(crate) async fn list(options: List, output: Output) -> Result<()> {
    let page = options.page.request(Some(&options.stream))?;
    let (_database, service) = operate::open("list").await?;
    let page = service.get_stream_snapshots(&options.stream, &page).await?;
    print_page(output, page, "no snapshots", |snapshots| {
        let rows = snapshots.iter().map(|snapshot| {
            let StreamSnapshot { snapshot_month, status, total_amount, amount_per_second, created_at, .. } = snapshot;
            let [status, total, second] = [status, total_amount, amount_per_second].map(|text| or_dash(text.as_ref()));
            [snapshot_month.to_string(), status, total, second, time(*created_at)]
        });
        table(["MONTH", "STATUS", "TOTAL AMOUNT", "PER SECOND", "TAKEN"], rows)
    })
}

/// One snapshot.
pub(crate) async fn get(options: Get, output: Output) -> Result<()> {
    let (_database, service) = operate::open("get").await?;
    let Get { stream, month } = options;
    let snapshot = service.get_snapshot(&stream, month).await?;
    let Some(snapshot) = snapshot else {
        return Err(
            format!("there is no snapshot of {stream} of {month}: `snapshots list` has those that there are").into()
        );
    };
    output.print(&snapshot, || describe(&snapshot))
}

/// A snapshot as lines: a name and its value each.
fn describe(snapshot: &StreamSnapshot) -> String {
    let dash = |text: &Option<String>| or_dash(text.as_ref());
    let rows = [
        ("stream", snapshot.stream_id.clone()),
        ("month", snapshot.snapshot_month.to_string()),
        ("taken", time(snapshot.created_at)),
        ("status", dash(&snapshot.status)),
        ("sender", dash(&snapshot.sender)),
        ("receiver", dash(&snapshot.receiver)),
        ("token", dash(&snapshot.token_address)),
        ("total amount", dash(&snapshot.total_amount)),
        ("per second", dash(&snapshot.amount_per_second)),
        ("state", or_dash(snapshot.state.as_ref())),
    ];
    let lines: Vec<_> = rows.iter().map(|(name, value)| format!("{name:<14}{value}")).collect();
    lines.join("\n")
}

/// A stream's archived logs, newest first.
pub(crate) async fn archive(options: Events, output: Output) -> Result<()> {
    let page = options.page.request(Some(&options.stream))?;
    let filter = options.filter.parse()?;
    let (_database, service) = operate::open("archive").await?;
    let page = service.get_archived_logs(&options.stream, &filter, &page).await?;
    print_page(output, page, "no archived logs", |logs| {
        let rows = logs.iter().map(|log| {
            let [created, kind, amount, id] = columns(log);
            [created, kind, amount, or_dash(log.archived_at.map(time)), id]
        });
        table(["CREATED", "TYPE", "AMOUNT", "ARCHIVED", "ID"], rows)
    })
}

/// A stream's events, hot and archived, newest first.
pub(crate) async fn events(options: Events, output: Output) -> Result<()> {
    let page = options.page.request(Some(&options.stream))?;
    let filter = options.filter.parse()?;
    let (_database, service) = operate::open("events").await?;
    let page = service.list_stream_events(&options.stream, &filter, &page).await?;
    print_page(output, page, "no events", event_table)
}

/// A stream's last snapshot before a time, and the events since.
pub(crate) async fn state(options: State, output: Output) -> Result<()> {
    let page = options.page.request(Some(&options.stream))?;
    let (_database, service) = operate::open("state").await?;
    let state = service.get_stream_state(&options.stream, options.at, &page).await?;
    let next_cursor = state.next_cursor.as_ref().map(Cursor::encode);
    output.print(&Listed { data: &state, next_cursor: next_cursor.as_ref(), left_out: 0 }, || {
        let events = if state.events.is_empty() {
            format!("no event since, up to {}", time(state.at))
        } else {
            format!(
                "events since, up to {}, in the order in which they apply:\n{}",
                time(state.at),
                event_table(&state.events)
            )
        };
        format!("{}\n\n{events}", describe(&state.snapshot))
    })?;
    if let Some(cursor) = next_cursor {
        output.say(&format!("there are more events: --cursor {cursor}"));
    }
    Ok(())
}

fn event_table(events: &[StreamEvent]) -> String {
    let rows = events.iter().map(|StreamEvent { tier, event }| {
        let [created, kind, amount, id] = columns(event);
        let tier = match tier {
            Tier::Hot => "hot",
            Tier::Archived => "archived",
        };
        [created, kind, amount, tier.into(), id]
    });
    table(["CREATED", "TYPE", "AMOUNT", "TIER", "ID"], rows)
}

/// When it was created, its type, its amount and its id.
fn columns(event: &LoggedEvent) -> [String; 4] {
    [time(event.created_at), event.event_type.clone(), or_dash(event.amount.as_ref()), event.id.clone()]
}
