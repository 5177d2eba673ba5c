//! Spans: what a call and its wait took, on the trace of whoever made it.
//!
//! Begun and ended by `gate` for the transports; taken from the queue by `telemetry`, which sends them. Where nobody collects spans
//! there is no [`Tracer`], and nothing of this is made. A span that the queue has no room for is dropped and counted: no call waits
//! for a collector. It never holds an argument of a call.

mod context;
mod sampler;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc;

pub use self::{
    context::{SpanId, TraceContext, TraceId},
    sampler::Sampler,
};
use crate::meter::{Dropped, Meter};

/// What a span is to its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A part of another span of this process.
    Internal,
    /// The answer to somebody's request.
    Server,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A number.
    Number(f64),
    /// Several texts.
    Texts(Vec<String>),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// What it is to its trace.
    pub kind: SpanKind,
    /// Where it is.
    pub context: TraceContext,
    /// The span that it is a part of.
    pub parent: Option<SpanId>,
    /// Another trace that led to it.
    pub link: Option<TraceContext>,
    /// When it began, in nanoseconds since 1970.
    pub began_unix_ns: u64,
    /// When it ended.
    pub ended_unix_ns: u64,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// The class of error in which it ended.
    pub error: Option<String>,
}

/// Makes spans, and hands those that have ended to whoever sends them.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    ended: mpsc::Sender<Span>,
    meter: Arc<Meter>,
}

impl Tracer {
    /// One whose spans, as many as `sampler` wants, go to the other end; at most `waiting_max` wait there.
    pub fn new(sampler: Sampler, waiting_max: usize, meter: Arc<Meter>) -> (Self, mpsc::Receiver<Span>) {
        let (ended, spans) = mpsc::channel(waiting_max);
        (Self { sampler, ended, meter }, spans)
    }

    /// Begins a span below `parent`, which may be another program's. None if this trace is not looked at.
    pub fn begin(
        self: &Arc<Self>,
        name: String,
        kind: SpanKind,
        parent: Option<&TraceContext>,
    ) -> Option<OpenSpan> {
        let mut random = [0; 24];
        // Without random numbers there are no ids, and so no spans.
        getrandom::fill(&mut random).ok()?;
        let (trace, span) = random.split_at(16);
        let trace = parent.map_or(TraceId(trace.try_into().ok()?), |parent| parent.trace);
        if !self.sampler.wants(trace, parent) {
            return None;
        }
        let context = TraceContext {
            trace,
            span: SpanId(span.try_into().ok()?),
            is_sampled: true,
            state: parent.and_then(|parent| parent.state.clone()),
        };
        let span = Span {
            name,
            kind,
            context,
            parent: parent.map(|parent| parent.span),
            link: None,
            began_unix_ns: unix_ns(),
            ended_unix_ns: 0,
            attributes: Vec::new(),
            error: None,
        };
        Some(OpenSpan { tracer: Arc::clone(self), began: Instant::now(), span: Some(span) })
    }
}

/// A span that goes on. It ends when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the span"]
pub struct OpenSpan {
    tracer: Arc<Tracer>,
    began: Instant,
    /// There until it is dropped.
    span: Option<Span>,
}

impl OpenSpan {
    /// Says something of it.
    pub fn set(&mut self, name: &'static str, value: impl Into<Attribute>) {
        if let Some(span) = &mut self.span {
            span.attributes.push((name, value.into()));
        }
    }

    /// It ends, or has ended, in an error of this class; the first one counts.
    pub fn failed(&mut self, class: &str) {
        if let Some(span) = &mut self.span {
            span.error.get_or_insert_with(|| class.to_owned());
        }
    }

    /// Whether it is known to have failed.
    pub fn has_failed(&self) -> bool {
        self.span.as_ref().is_some_and(|span| span.error.is_some())
    }

    /// Another trace has led to it.
    pub fn link(&mut self, other: TraceContext) {
        if let Some(span) = &mut self.span {
            span.link = Some(other);
        }
    }

    /// A part of it.
    pub fn child(&self, name: &str) -> Option<Self> {
        let context = self.span.as_ref().map(|span| &span.context)?;
        self.tracer.begin(name.to_owned(), SpanKind::Internal, Some(context))
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let Some(mut span) = self.span.take() else { return };
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // By the clock that nobody sets: a span never ends before it began.
        span.ended_unix_ns = span.began_unix_ns.saturating_add(took);
        if self.tracer.ended.try_send(span).is_err() {
            self.tracer.meter.dropped(Dropped::Span, 1);
        }
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sampler: Sampler, waiting_max: usize) -> (Arc<Tracer>, mpsc::Receiver<Span>, Arc<Meter>) {
        let meter = Arc::new(Meter::default());
        let (tracer, spans) = Tracer::new(sampler, waiting_max, Arc::clone(&meter));
        (Arc::new(tracer), spans, meter)
    }

    #[test]
    fn a_span_is_on_the_trace_of_its_parent_and_its_part_below_it() {
        let (tracer, mut spans, _) = tracer(Sampler::default(), 10);
        let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let caller = TraceContext::parse(caller, Some("rojo=1")).unwrap();
        let mut call = tracer.begin("tools/call pay".to_owned(), SpanKind::Server, Some(&caller)).unwrap();
        drop(call.child("hold").unwrap());
        call.failed("rejected");
        call.failed("later");
        drop(call);
        let (hold, call) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
        assert_eq!((call.context.trace, call.parent), (caller.trace, Some(caller.span)));
        assert_eq!((hold.context.trace, hold.parent), (caller.trace, Some(call.context.span)));
        assert_eq!(hold.context.state.as_deref(), Some("rojo=1"));
        assert_eq!(call.error.as_deref(), Some("rejected"), "the first counts");
        assert!(call.began_unix_ns <= hold.began_unix_ns && hold.ended_unix_ns <= call.ended_unix_ns);
    }

    #[test]
    fn spans_that_nobody_takes_are_dropped_and_counted() {
        let (tracer, _spans, meter) = tracer(Sampler::default(), 2);
        for _ in 0..5 {
            drop(tracer.begin("x".to_owned(), SpanKind::Server, None));
        }
        let dropped =
            meter.families().into_iter().find(|one| one.name() == "holdshort.events.dropped").unwrap();
        assert!(dropped.points.iter().any(|point| {
            point.labels == [("what", "span".to_owned())] && point.value == crate::meter::Value::Count(3)
        }));
    }
}
