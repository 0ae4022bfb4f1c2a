//! How a result is printed: as text for people, or as one JSON document for programs. What else is to be said goes to standard error.

use std::error::Error;
use std::io::{self, IsTerminal, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::{Result, progress};

/// What a result is printed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Text for people
    Human,
    /// One JSON document
    Json,
}

/// How results are printed. Every command has these options.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Output {
    /// How the result is printed
    #[arg(long = "output", global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Human)]
    format: Format,
    /// The same as --output json
    #[arg(long, global = true, conflicts_with = "format")]
    json: bool,
    /// Say nothing but the result, warnings and errors
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Output {
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    pub(crate) fn is_json(self) -> bool {
        self.json || self.format == Format::Json
    }

    /// Prints `value`: as JSON, or as the text that `text` makes of it.
    pub(crate) fn print(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        // What the host has written must not steer a terminal.
        let printed = if self.is_json() { serde_json::to_string_pretty(value)? } else { plain(&text(), &['\n']) };
        write_out(&printed)
    }

    /// Says something beside the result, unless it is not wanted.
    pub(crate) fn say(self, line: &str) {
        if !self.quiet {
            progress::print_line(line);
        }
    }
}

/// Writes `text` and the end of its last line to standard output.
pub(crate) fn write_out(text: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{}", text.trim_end())?)
}

/// Whether standard output was closed by whoever reads it, who has had enough, as `head` has.
pub(crate) fn is_end_of_reading(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A text without control characters but those that are `allowed`: others are written as Rust writes them.
fn plain(text: &str, allowed: &[char]) -> String {
    let is_plain = |character: &char| !character.is_control() || allowed.contains(character);
    let write = |character: char| {
        if is_plain(&character) { character.to_string() } else { character.escape_default().to_string() }
    };
    text.chars().map(write).collect()
}

/// Rows in columns under their names: fitted to the terminal; elsewhere a row is one line, for whoever searches it.
pub(crate) fn table<const N: usize>(names: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    let rows = rows.into_iter().map(|cells| cells.map(|cell| plain(&cell, &[])));
    table.load_style(presets::NOTHING).set_header(names).add_rows(rows);
    match terminal_size::terminal_size_of(io::stdout()) {
        Some((terminal_size::Width(width), _)) => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A time in UTC, to the second.
pub(crate) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A text, or a dash where there is none.
pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".into(), |text| text.to_string())
}

/// A number with its digits in groups of three.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Asks on a terminal whether to go on. Where nobody can be asked, `yes` must have been given.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err("nobody can be asked whether to go on, as there is no terminal: give --yes".into());
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err("nothing was done".into())
}

/// Whether colours are wanted on `stream`: on a terminal, unless NO_COLOR says otherwise.
pub(crate) fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn what_a_host_has_written_cannot_steer_a_terminal_or_break_a_row() {
        assert_eq!(table(["NAME"], [["a\u{1b}[2J\nb".into()]]), "NAME\na\\u{1b}[2J\\nb");
        assert_eq!(plain("é\u{7}\n🦀", &['\n']), "é\\u{7}\n🦀");
    }

    #[test]
    fn a_table_has_a_line_for_each_row_where_there_is_no_terminal() {
        let long = "x".repeat(300);
        let text = table(["NAME", "VALUE"], [["a".into(), long.clone()], ["bc".into(), "1".into()]]);
        assert_eq!(text, format!("NAME  VALUE\na     {long}\nbc    1"));
    }
}
