use crate::{Result, report};

/// What several measurements of one thing came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], lowest: values[0], highest: values[values.len() - 1] }
    }
}

/// Measurements of ours, each with one of the reference that was taken next to it.
#[derive(Debug, Default)]
pub(crate) struct Pairs(Vec<(f64, f64)>);

impl Pairs {
    /// Each pair's ratio of ours to the reference.
    pub(crate) fn ratio(&self) -> Spread {
        Spread::of(self.0.iter().map(|(ours, reference)| ours / reference).collect())
    }

    pub(crate) fn ours(&self) -> f64 {
        Spread::of(self.0.iter().map(|(ours, _)| *ours).collect()).median
    }

    pub(crate) fn reference(&self) -> f64 {
        Spread::of(self.0.iter().map(|(_, reference)| *reference).collect()).median
    }
}

/// Takes `count` pairs of measurements. Neither of a pair always comes first. A measurement may have `N` results, each of
/// which is compared by itself.
pub(crate) async fn in_turn<const N: usize>(
    count: usize,
    ours: impl AsyncFn() -> Result<[f64; N]>,
    reference: impl AsyncFn() -> Result<[f64; N]>,
) -> Result<[Pairs; N]> {
    let mut pairs = std::array::from_fn(|_| Pairs::default());
    for index in 0..count {
        let (one, other) = if index % 2 == 0 {
            let other = reference().await?;
            (ours().await?, other)
        } else {
            let one = ours().await?;
            (one, reference().await?)
        };
        // For whoever waits, and a first look at a figure that is out of line.
        report::say(&format!("pair {} of {count}: {one:.1?} against {other:.1?}", index + 1));
        for (pairs, pair) in pairs.iter_mut().zip(one.into_iter().zip(other)) {
            pairs.0.push(pair);
        }
    }
    Ok(pairs)
}
