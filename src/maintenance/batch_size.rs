use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::Settings;
use crate::error::{Error, Result, Retry};

/// Rows of the first batch, where more are allowed: it takes a fraction of a second on any machine.
const FIRST_ROWS: u32 = 20_000;
/// A batch is not made smaller than this for being slow: below, what it costs does not depend on its rows.
const MIN_ROWS: u32 = 5_000;
/// How often one batch is tried again, once it cannot get smaller.
const MAX_RETRIES: usize = 5;

/// How many rows the next batch takes, so that one takes about as long as wanted.
#[derive(Debug)]
pub(super) struct BatchSize {
    rows: u32,
    max_rows: u32,
    target: Duration,
}

impl BatchSize {
    /// `cut_down_to`: what batches of the run were cut down to before.
    pub(super) fn new(settings: &Settings, cut_down_to: Option<u32>) -> Self {
        let rows = settings.batch_rows.min(FIRST_ROWS).min(cut_down_to.unwrap_or(FIRST_ROWS)).max(1);
        Self { rows, max_rows: settings.batch_rows, target: settings.batch_target }
    }

    /// Most rows that the next batch may take.
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Begins to attempt a batch.
    pub(super) fn attempt(&mut self) -> Attempt<'_> {
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(2))
            .with_max_times(MAX_RETRIES)
            .with_jitter()
            .build();
        Attempt { size: self, delays, started: Instant::now() }
    }

    /// Grows by a quarter while batches are quick, shrinks as far as one was too slow, by half at most.
    fn adapt(&mut self, full: bool, elapsed: Duration) {
        if elapsed > self.target {
            let share = (self.target.as_secs_f64() / elapsed.as_secs_f64()).max(0.5);
            self.rows = scale(self.rows, share).max(MIN_ROWS.min(self.rows));
        } else if full {
            self.rows = scale(self.rows, 1.25).max(self.rows + 1).min(self.max_rows);
        }
    }
}

/// One batch, tried with fewer rows while it takes too long, and again when it lost against another transaction.
pub(super) struct Attempt<'a> {
    size: &'a mut BatchSize,
    delays: ExponentialBackoff,
    started: Instant,
}

impl Attempt<'_> {
    /// Most rows that the batch may take now.
    pub(super) fn rows(&self) -> u32 {
        self.size.rows
    }

    /// How long it has taken so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The batch is done with `seen` rows. Returns whether it was full, so that there may be more.
    pub(super) fn succeed(self, seen: u64) -> bool {
        let full = seen >= u64::from(self.size.rows);
        self.size.adapt(full, self.started.elapsed());
        full
    }

    /// The batch failed: returns when it is to be tried again, and whether with fewer rows.
    ///
    /// # Errors
    ///
    /// `error`, when trying again does not help.
    pub(super) async fn fail(&mut self, error: Error) -> Result<bool> {
        let rows = self.size.rows;
        let Some(retry) = error.retry() else { return Err(error) };
        let is_smaller = retry == Retry::Smaller && rows > 1;
        if is_smaller {
            self.size.rows = rows / 2;
        } else {
            let Some(delay) = self.delays.next() else { return Err(error) };
            tokio::time::sleep(delay).await;
        }
        self.started = Instant::now();
        Ok(is_smaller)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from f64 saturates")]
fn scale(rows: u32, by: f64) -> u32 {
    (f64::from(rows) * by) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(batch_rows: u32) -> BatchSize {
        BatchSize::new(&Settings { batch_rows, ..Settings::default() }, None)
    }

    #[test]
    fn batches_grow_gently_up_to_the_limit_and_only_when_they_are_full() {
        let mut size = size(30_000);
        let mut rows = Vec::new();
        for full in [true, false, true, true] {
            rows.push(size.rows);
            size.adapt(full, Duration::from_millis(100));
        }
        rows.push(size.rows);
        assert_eq!(rows, [20_000, 25_000, 25_000, 30_000, 30_000]);
    }

    #[test]
    fn a_slow_batch_makes_the_next_one_as_much_smaller_but_by_half_at_most() {
        let mut size = size(100_000);
        size.adapt(true, Duration::from_millis(1250));
        assert_eq!(size.rows, 16_000);
        size.adapt(true, Duration::from_mins(1));
        assert_eq!(size.rows, 8_000);
        for _ in 0..9 {
            size.adapt(true, Duration::from_mins(1));
        }
        assert_eq!(size.rows, 5_000, "what takes that long is not the rows");
        let again = BatchSize::new(&Settings::default(), Some(700));
        assert_eq!(again.rows, 700, "a slice begins with what the one before was cut down to");
    }

    fn database_error() -> Error {
        Error::Busy { retry: None, source: "not PostgreSQL's".into() }
    }

    #[tokio::test]
    async fn what_no_retry_can_mend_is_not_tried_again() {
        let mut size = size(10);
        for error in [Error::UnknownEvent, database_error()] {
            assert!(size.attempt().fail(error).await.is_err());
        }
        assert_eq!(size.rows, 10);
    }
}
