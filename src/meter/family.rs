//! Families of numbers: what each is called, means and is labelled with. The one list of all that is measured.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is as it is now.
    Gauge,
    /// How often something took how long.
    Histogram,
}

impl Kind {
    /// The word of Prometheus.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What is known of a family before anything is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name in OpenTelemetry.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// In what it is measured, by UCUM: `s`, `By`, or `1` for a number of things.
    pub unit: &'static str,
    /// What it says, in one sentence.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
}

impl Described {
    /// Its name in Prometheus, by the rules by which OpenTelemetry translates names; of a counter without `_total`.
    pub fn prometheus_base(&self) -> String {
        let unit = match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        format!("{}{unit}", self.name.replace('.', "_"))
    }

    /// Its name in Prometheus, as queries have it.
    pub fn prometheus_name(&self) -> String {
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{total}", self.prometheus_base())
    }
}

const fn described(
    name: &'static str,
    (kind, unit): (Kind, &'static str),
    labels: &'static [&'static str],
    help: &'static str,
) -> Described {
    Described { name, kind, unit, help, labels }
}

/// Everything that is measured.
pub const FAMILIES: &[Described] = &[
    described(
        "holdshort.build.info",
        (Kind::Gauge, "1"),
        &["version"],
        "1, labelled with the version of the program.",
    ),
    described(
        "holdshort.process.start",
        (Kind::Gauge, "s"),
        &[],
        "When the process began, in seconds since 1970.",
    ),
    described(
        "holdshort.process.memory",
        (Kind::Gauge, "By"),
        &[],
        "Memory of the process that is resident; absent where the system does not tell.",
    ),
    described(
        "holdshort.calls",
        (Kind::Counter, "1"),
        &["server", "effect"],
        "Calls that the gate has judged: allow, hold, deny, or refuse where a call could not be read in one way.",
    ),
    described(
        "holdshort.holds.open",
        (Kind::Gauge, "1"),
        &[],
        "Calls that wait in this process, with a caller.",
    ),
    described(
        "holdshort.holds.oldest.age",
        (Kind::Gauge, "s"),
        &[],
        "How long the oldest of them has waited; 0 where none waits.",
    ),
    described(
        "holdshort.holds.ended",
        (Kind::Counter, "1"),
        &["server", "outcome"],
        "Holds that have ended at this process: approved, rejected, expired, withdrawn, unavailable.",
    ),
    described(
        "holdshort.decision.duration",
        (Kind::Histogram, "s"),
        &["outcome"],
        "Time from the beginning of a hold to its end.",
    ),
    described(
        "holdshort.record.holds",
        (Kind::Gauge, "1"),
        &["state"],
        "Holds on the record that are not over, of all its processes, with a caller or without one; absent while it cannot be read.",
    ),
    described(
        "holdshort.record.oldest.age",
        (Kind::Gauge, "s"),
        &[],
        "How long the oldest hold on the record has waited that can be decided; 0 where there is none.",
    ),
    described(
        "holdshort.channel.deliveries",
        (Kind::Counter, "1"),
        &["channel", "result"],
        "Attempts to tell people through a channel: sent, again where it is tried later, given_up, skipped.",
    ),
    described(
        "holdshort.store.duration",
        (Kind::Histogram, "s"),
        &["operation"],
        "Time that the record takes for a durable write or a read, with the wait for its turn.",
    ),
    described(
        "holdshort.store.failures",
        (Kind::Counter, "1"),
        &["operation"],
        "Writes and reads that the record could not do.",
    ),
    described(
        "holdshort.store.ready",
        (Kind::Gauge, "1"),
        &[],
        "Whether the record can be written now: 1 or 0.",
    ),
    described(
        "holdshort.events.dropped",
        (Kind::Counter, "1"),
        &["what"],
        "What was left out because too much came at once: events of the audit log, spans, lines of the log.",
    ),
    described(
        "holdshort.policy.loads",
        (Kind::Counter, "1"),
        &["result"],
        "Policies that have come into force since the start, or were refused.",
    ),
];

/// A family with its numbers.
#[derive(Clone, Debug)]
pub struct Family {
    /// What it is.
    pub described: &'static Described,
    /// Its numbers, each with its labels.
    pub points: Vec<Point>,
}

impl Family {
    /// Its name in OpenTelemetry.
    pub fn name(&self) -> &'static str {
        self.described.name
    }
}

/// One number.
#[derive(Clone, Debug)]
pub struct Point {
    /// The labels, in the order of the family's.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: Value,
}

/// A number of some kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a gauge.
    Level(f64),
    /// Of a histogram.
    Spread(Distribution),
}

/// How often something took how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bounds, in seconds.
    pub bounds: &'static [f64],
    /// How often each was the first that was not exceeded; the last is for what exceeded all.
    pub counts: Vec<u64>,
    /// All of it together, in seconds.
    pub sum: f64,
}

impl Distribution {
    /// How often in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The family `name` with `points`; none if it is not in [`FAMILIES`].
pub fn family(name: &str, points: Vec<Point>) -> Option<Family> {
    let described = FAMILIES.iter().find(|known| known.name == name)?;
    Some(Family { described, points })
}

/// A number with its labels.
pub fn point(labels: &[(&'static str, &str)], value: Value) -> Point {
    Point { labels: labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(), value }
}
