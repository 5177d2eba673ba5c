//! Quantiles, and the table that the benches print.
//!
//! Used by both benches. It never judges a figure beyond comparing it with its target, and never ends the program.

/// The value below which the share `q` (0 to 1) of `sorted` lies: the nearest rank, so always one of the samples.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(last)).copied().unwrap_or(f64::NAN)
}

/// `samples` in ascending order.
pub(crate) fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_unstable_by(f64::total_cmp);
    samples
}

/// The middle of `samples` and the quartiles around it: what a round usually gives, and how far rounds differ.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(samples: Vec<f64>) -> Self {
        let sorted = sorted(samples);
        Self { low: quantile(&sorted, 0.25), median: quantile(&sorted, 0.5), high: quantile(&sorted, 0.75) }
    }
}

/// What a figure is held against.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Shown for what it is worth.
    None,
}

/// One line of the table.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// The measured values, ready to read, one a column.
    pub(crate) values: Vec<String>,
    /// The figure that the target is about, with the unit it is written in (`×`, ` ms`).
    pub(crate) figure: Option<(Spread, &'static str)>,
    pub(crate) target: Target,
}

impl Row {
    fn verdict(&self) -> (String, &'static str) {
        let Some((figure, unit)) = self.figure else { return (String::new(), "") };
        match self.target {
            Target::AtMost(most) => {
                (format!("≤ {most}{unit}"), if figure.median <= most { "ok" } else { "OVER" })
            }
            Target::AtLeast(least) => {
                (format!("≥ {least}{unit}"), if figure.median >= least { "ok" } else { "UNDER" })
            }
            Target::None => (String::new(), ""),
        }
    }
}

/// The table as text: `columns` are the headings of the values.
pub(crate) fn table(columns: &[&str], rows: &[Row]) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    let mut line =
        |name: &str, values: &[String], figure: &str, quartiles: &str, target: &str, verdict: &str| {
            let _ = write!(text, "{name:<38}");
            for value in values {
                let _ = write!(text, "{value:>12}");
            }
            let _ = writeln!(text, "{figure:>12}  {quartiles:<17}{target:<10}{verdict}");
        };
    let headings: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
    line("", &headings, "figure", "[quartiles]", "target", "");
    for row in rows {
        let (target, verdict) = row.verdict();
        let (figure, quartiles) = match row.figure {
            Some((spread, unit)) => (
                format!("{:.*}{unit}", digits(spread.median), spread.median),
                format!("[{:.*}..{:.*}]", digits(spread.low), spread.low, digits(spread.high), spread.high),
            ),
            None => (String::new(), String::new()),
        };
        line(&row.name, &row.values, &figure, &quartiles, &target, verdict);
    }
    text
}

/// Three significant digits or a little more: enough to compare, not so many that noise looks like a result.
fn digits(value: f64) -> usize {
    match value.abs() {
        value if value >= 1000.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    }
}
