//! Spans and numbers as the messages of OTLP 1 (`opentelemetry.proto.collector.{trace,metrics}.v1`).
//!
//! Pure: it writes down what it is given. The numbers of fields are those of the protocol's definitions.

use bytes::Bytes;
use jiff::Timestamp;

use super::{protobuf::Message, settings::OtlpSettings};
use crate::{
    meter::{Family, Kind, Point, Value},
    trace::{Attribute, Span, SpanKind, TraceContext},
};

/// The name under which this program measures.
const SCOPE: &str = "holdshort";

/// Sums since the process began (`AGGREGATION_TEMPORALITY_CUMULATIVE`).
const CUMULATIVE: u64 = 2;

/// The status of a span that has failed (`STATUS_CODE_ERROR`).
const FAILED: u64 = 2;

/// The bit of a span's flags that says that the one next to it is known (`SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`), and the one itself.
const REMOTE: u32 = 0x300;
const NOT_REMOTE: u32 = 0x100;

/// Which process tells.
pub(super) struct Resource(Vec<(String, String)>);

impl Resource {
    /// The process `instance`.
    pub(super) fn new(settings: &OtlpSettings, instance: &str) -> Self {
        let mut attributes = vec![
            ("service.name".to_owned(), settings.service.clone()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id".to_owned(), instance.to_owned()),
        ];
        attributes.extend(settings.attributes.iter().filter(|(name, _)| name != "service.name").cloned());
        Self(attributes)
    }

    fn write(&self, to: &mut Message) {
        for (name, value) in &self.0 {
            to.message(1, |pair| key_value(pair, name, |any| any.text(1, value)));
        }
    }
}

/// All of `spans` in one request.
pub(super) fn spans(resource: &Resource, spans: &[Span]) -> Bytes {
    request(resource, |scope| spans.iter().for_each(|one| scope.message(2, |to| span(to, one))))
}

/// All of `families` in one request; counters count since `began`.
pub(super) fn numbers(resource: &Resource, families: &[Family], began: Timestamp) -> Bytes {
    let times = (unix_ns(began), unix_ns(Timestamp::now()));
    request(resource, |scope| {
        for one in families.iter().filter(|family| !family.points.is_empty()) {
            scope.message(2, |to| family(to, one, times));
        }
    })
}

/// A request with one resource and one scope, which has the same shape for every signal.
fn request(resource: &Resource, write: impl FnOnce(&mut Message)) -> Bytes {
    let mut request = Message::default();
    request.message(1, |of_resource| {
        of_resource.message(1, |to| resource.write(to));
        of_resource.message(2, |of_scope| {
            of_scope.message(1, |scope| {
                scope.text(1, SCOPE);
                scope.text(2, env!("CARGO_PKG_VERSION"));
            });
            write(of_scope);
        });
    });
    request.into_bytes().into()
}

fn span(to: &mut Message, span: &Span) {
    context(to, &span.context);
    if let Some(parent) = span.parent {
        to.bytes(4, &parent.0);
    }
    to.text(5, &span.name);
    to.number(
        6,
        match span.kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
        },
    );
    to.fixed64(7, span.began_unix_ns);
    to.fixed64(8, span.ended_unix_ns);
    for (name, value) in &span.attributes {
        to.message(9, |pair| key_value(pair, name, |any| attribute(any, value)));
    }
    if let Some(error) = &span.error {
        to.message(9, |pair| key_value(pair, "error.type", |any| any.text(1, error)));
    }
    if let Some(link) = &span.link {
        to.message(13, |to| {
            context(to, link);
            to.fixed32(6, REMOTE | u32::from(link.is_sampled));
        });
    }
    if span.error.is_some() {
        to.message(15, |status| status.number(3, FAILED));
    }
    // A call's parent is another program's, a wait's is the call here.
    let is_remote = span.parent.is_some() && span.kind == SpanKind::Server;
    to.fixed32(16, if is_remote { REMOTE } else { NOT_REMOTE } | u32::from(span.context.is_sampled));
}

fn context(to: &mut Message, context: &TraceContext) {
    to.bytes(1, &context.trace.0);
    to.bytes(2, &context.span.0);
    to.text(3, context.state.as_deref().unwrap_or_default());
}

fn key_value(pair: &mut Message, name: &str, value: impl FnOnce(&mut Message)) {
    pair.text(1, name);
    pair.message(2, value);
}

fn attribute(any: &mut Message, value: &Attribute) {
    match value {
        Attribute::Text(text) => any.text(1, text),
        Attribute::Number(number) => any.double(4, *number),
        Attribute::Texts(texts) => any.message(5, |list| {
            texts.iter().for_each(|text| list.message(1, |any| any.text(1, text)));
        }),
    }
}

fn family(to: &mut Message, family: &Family, times: (u64, u64)) {
    let described = family.described;
    to.text(1, described.name);
    to.text(2, described.help);
    to.text(3, described.unit);
    let points = |to: &mut Message| {
        for one in &family.points {
            to.message(1, |to| point(to, one, times));
        }
    };
    match described.kind {
        Kind::Gauge => to.message(5, points),
        Kind::Counter => to.message(7, |sum| {
            points(sum);
            sum.number(2, CUMULATIVE);
            sum.number(3, 1);
        }),
        Kind::Histogram => to.message(9, |histogram| {
            points(histogram);
            histogram.number(2, CUMULATIVE);
        }),
    }
}

fn point(to: &mut Message, point: &Point, (began, now): (u64, u64)) {
    to.fixed64(2, began);
    to.fixed64(3, now);
    let labels = match &point.value {
        // As a whole number, whose bytes are those of a signed one.
        Value::Count(count) => {
            to.fixed64(6, *count);
            7
        }
        Value::Level(level) => {
            to.double(4, *level);
            7
        }
        Value::Spread(spread) => {
            to.fixed64(4, spread.count());
            to.double(5, spread.sum);
            to.packed(6, spread.counts.iter().copied());
            to.packed(7, spread.bounds.iter().map(|bound| bound.to_bits()));
            9
        }
    };
    for (name, value) in &point.labels {
        to.message(labels, |pair| key_value(pair, name, |any| any.text(1, value)));
    }
}

fn unix_ns(at: Timestamp) -> u64 {
    u64::try_from(at.as_nanosecond()).unwrap_or_default()
}
