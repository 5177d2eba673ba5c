//! Numbers as text for Prometheus: format 0.0.4, or OpenMetrics 1.0 for a scraper that asks for it.
//!
//! Pure: it writes down what it is given.

use std::fmt::Write as _;

use crate::meter::{FAMILIES, Family, Value};

/// In which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What the scraper wants, by its `Accept` header.
    pub(super) fn wanted(accept: Option<&str>) -> Self {
        let wants = accept.is_some_and(|accept| {
            accept
                .split(',')
                .any(|one| one.trim().to_ascii_lowercase().starts_with("application/openmetrics-text"))
        });
        if wants { Self::OpenMetrics } else { Self::Text }
    }

    /// The type of the answer.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// `families`, and of those that have no numbers yet what they are.
pub(super) fn write(families: &[Family], format: Format) -> String {
    let mut text = String::with_capacity(16 << 10);
    for described in FAMILIES {
        let named = match format {
            Format::Text => described.prometheus_name(),
            Format::OpenMetrics => described.prometheus_base(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {named} {}", described.help);
        let _ = writeln!(text, "# TYPE {named} {}", described.kind.word());
        if format == Format::OpenMetrics
            && let Some((_, unit)) = unit(&named, described.unit)
        {
            let _ = writeln!(text, "# UNIT {named} {unit}");
        }
        let points = families.iter().filter(|family| family.described == described);
        for point in points.flat_map(|family| &family.points) {
            let name = described.prometheus_name();
            let labels = &point.labels;
            match &point.value {
                Value::Count(count) => {
                    let _ = writeln!(text, "{name}{} {count}", braces(labels, None));
                }
                Value::Level(level) => {
                    let _ = writeln!(text, "{name}{} {level:?}", braces(labels, None));
                }
                Value::Spread(spread) => {
                    let mut so_far = 0;
                    for (count, bound) in
                        spread.counts.iter().zip(spread.bounds.iter().map(Some).chain([None]))
                    {
                        so_far += count;
                        let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
                        let _ = writeln!(text, "{name}_bucket{} {so_far}", braces(labels, Some(&bound)));
                    }
                    let _ = writeln!(text, "{name}_sum{} {:?}", braces(labels, None), spread.sum);
                    let _ = writeln!(text, "{name}_count{} {so_far}", braces(labels, None));
                }
            }
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// The unit at the end of a name, where it has one.
fn unit<'a>(name: &'a str, unit: &str) -> Option<(&'a str, &'a str)> {
    if unit == "1" { None } else { name.rsplit_once('_') }
}

/// Labels as they stand behind a name; `bound` is that of a bucket.
fn braces(labels: &[(&'static str, String)], bound: Option<&str>) -> String {
    let named = labels.iter().map(|(key, value)| (*key, &**value)).chain(bound.map(|bound| ("le", bound)));
    let written: Vec<String> = named.map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
    if written.is_empty() { String::new() } else { format!("{{{}}}", written.join(",")) }
}

/// A value between quotes, in which nothing can end it or begin a line.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::meter::{Asked, Judged, Meter};

    fn told() -> Vec<Family> {
        let meter = Meter::default();
        meter.judged("bill\"ing\\\n", Judged::Hold);
        meter.store_answered(Asked::Write, Duration::from_micros(700), false);
        meter.store_answered(Asked::Write, Duration::from_secs(20), true);
        meter.families()
    }

    #[test]
    fn counters_and_histograms_are_written_as_prometheus_reads_them() {
        let text = write(&told(), Format::Text);
        for line in [
            "# TYPE holdshort_calls_total counter",
            r#"holdshort_calls_total{server="bill\"ing\\\n",effect="hold"} 1"#,
            "# TYPE holdshort_store_duration_seconds histogram",
            r#"holdshort_store_duration_seconds_bucket{operation="write",le="0.0005"} 0"#,
            r#"holdshort_store_duration_seconds_bucket{operation="write",le="0.001"} 1"#,
            r#"holdshort_store_duration_seconds_bucket{operation="write",le="10.0"} 1"#,
            r#"holdshort_store_duration_seconds_bucket{operation="write",le="+Inf"} 2"#,
            r#"holdshort_store_duration_seconds_sum{operation="write"} 20.0007"#,
            r#"holdshort_store_duration_seconds_count{operation="write"} 2"#,
            r#"holdshort_store_failures_total{operation="write"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    }

    #[test]
    fn openmetrics_names_families_without_total_and_ends() {
        let text = write(&told(), Format::OpenMetrics);
        assert!(text.contains("# TYPE holdshort_calls counter\n") && text.ends_with("# EOF\n"));
        assert!(text.contains("# UNIT holdshort_store_duration_seconds seconds\n"));
        assert!(text.contains("holdshort_calls_total{"));
    }

    #[test]
    fn the_scraper_says_which_format_it_wants() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        assert_eq!(Format::wanted(Some(prometheus)), Format::OpenMetrics);
        for other in [None, Some("*/*"), Some("text/plain;version=0.0.4")] {
            assert_eq!(Format::wanted(other), Format::Text);
        }
    }
}
