use std::fmt::Write as _;
use std::io::Write as _;

use local_postgres::Server;

use crate::pairs::Spread;
use crate::{Result, data};

/// Where the results are kept.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md");

/// One line of the table.
pub(crate) struct Figure {
    name: String,
    value: f64,
    goal: Goal,
    aim: Option<f64>,
    lowest: f64,
    highest: f64,
    /// What was measured, in its own units.
    measured: String,
}

/// What a figure must reach.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Figure {
    pub(crate) fn new(name: &str, spread: Spread, goal: Goal, measured: String) -> Self {
        let Spread { median, lowest, highest } = spread;
        Self { name: name.into(), value: median, goal, aim: None, lowest, highest, measured }
    }

    /// With what would be better still.
    pub(crate) fn aim(self, aim: f64) -> Self {
        Self { aim: Some(aim), ..self }
    }

    fn is_reached(&self) -> bool {
        match self.goal {
            Goal::AtLeast(goal) => self.value >= goal,
            Goal::AtMost(goal) => self.value <= goal,
        }
    }
}

/// All figures, and what they were taken on.
pub(crate) struct Report {
    machine: String,
    figures: Vec<Figure>,
    is_kept: bool,
}

impl Report {
    /// Without figures yet. One that `is_kept` is written to the file.
    pub(crate) async fn new(server: &Server, settings: &[&str], is_kept: bool) -> Result<Self> {
        let client = data::connect(&server.url("postgres")).await?;
        let postgres: String = client.query_one("SHOW server_version", &[]).await?.get(0);
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let machine = format!(
            "{cores} cores ({}), {} of memory; PostgreSQL {postgres} with {} and fsync on, on the same machine; {}",
            field(&cpu, "model name"),
            field(&read("/proc/meminfo"), "MemTotal"),
            settings.join(", "),
            chrono::Utc::now().format("%Y-%m-%d"),
        );
        Ok(Self { machine, figures: Vec::new(), is_kept })
    }

    /// Prints a figure and, when kept, writes it down at once: who interrupts the rest keeps what was measured.
    pub(crate) fn add(&mut self, figure: Figure) -> Result<()> {
        say(&line(&figure));
        self.figures.push(figure);
        if self.is_kept { self.write() } else { Ok(()) }
    }

    pub(crate) fn all_reached(&self) -> bool {
        self.figures.iter().all(Figure::is_reached)
    }

    fn write(&self) -> Result<()> {
        let mut text = String::from("# Results of `make bench`\n\n");
        writeln!(
            text,
            "Written by `make bench`. A ratio is of two measurements, ours against the reference, which are taken in turn. The\n\
             value is the median, the spread the lowest and the highest. Taken on\n{}.\n",
            self.machine
        )?;
        writeln!(text, "| figure | value | must reach | aim | spread | measured |\n|---|---|---|---|---|---|")?;
        for figure in &self.figures {
            writeln!(text, "{}", line(figure))?;
        }
        Ok(std::fs::write(RESULTS, text)?)
    }
}

fn line(figure: &Figure) -> String {
    let Figure { name, value, goal, aim, lowest, highest, measured } = figure;
    let goal = match goal {
        Goal::AtLeast(goal) => format!("at least {goal}"),
        Goal::AtMost(goal) => format!("at most {goal}"),
    };
    let missed = if figure.is_reached() { "" } else { ", missed" };
    let aim = aim.map(|aim| aim.to_string()).unwrap_or_default();
    format!("| {name} | {value:.2} | {goal}{missed} | {aim} | {lowest:.2} to {highest:.2} | {measured} |")
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal place")]
pub(crate) fn megabytes(kilobytes: u64) -> f64 {
    kilobytes as f64 / 1024.0
}

/// Writes a line for whoever waits.
pub(crate) fn say(line: &str) {
    // The terminal may be gone; the results are in the file.
    let _ = writeln!(std::io::stdout(), "{line}");
}
