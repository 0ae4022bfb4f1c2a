//! How a result is printed: as text for people, or as one JSON document for programs. What else is to be said goes to standard error.

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
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but the result, warnings and errors
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Output {
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Prints `value`: as JSON, or as the text that `text` makes of it.
    pub(crate) fn print(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let printed =
            if self.json || self.format == Format::Json { serde_json::to_string_pretty(value)? } else { text() };
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
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        // Whoever reads has had enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Rows in columns under their names: fitted to the terminal; elsewhere a row is one line, for whoever searches it.
pub(crate) fn table<const N: usize>(names: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
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
    fn a_table_has_a_line_for_each_row_where_there_is_no_terminal() {
        let long = "x".repeat(300);
        let text = table(["NAME", "VALUE"], [["a".into(), long.clone()], ["bc".into(), "1".into()]]);
        assert_eq!(text, format!("NAME  VALUE\na     {long}\nbc    1"));
    }
}
