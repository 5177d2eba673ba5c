//! Spans and numbers sent to a collector: OTLP over HTTP, in protobuf.
//!
//! Started by `cli` where the environment names a collector (`OTEL_…`, the variables of OpenTelemetry). A thread of its own takes
//! spans from a queue and sends them in batches; a collector that is away or slow costs spans, which are counted, and no call anything.

mod encode;
mod protobuf;
mod settings;

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};

use self::encode::Resource;
pub use self::settings::{BadSettings, OtlpSettings};
use super::collect::Subject;
use crate::{
    channels::endpoint::Endpoint,
    meter::{Dropped, Meter},
    trace::{Span, Tracer},
};

/// How often one batch is tried.
const ATTEMPTS_MAX: u32 = 3;

/// The pause after the first failure; it doubles.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause that a collector may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long the end of the program waits for the last batch and the last numbers.
const LAST_BATCH: Duration = Duration::from_millis(400);

/// What runs while spans and numbers are sent.
#[derive(Debug)]
pub struct Otlp {
    stop: Option<oneshot::Sender<Arc<Subject>>>,
    begin: Option<oneshot::Sender<Arc<Subject>>>,
    thread: Option<JoinHandle<()>>,
    ended: mpsc::Receiver<()>,
}

/// One collector for one kind of signal.
struct Collector {
    endpoint: Endpoint,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    /// Whether it is known not to take what is sent: told once.
    is_failing: bool,
}

impl Otlp {
    /// Sends what `settings` say, of the process `instance`. Gives what makes spans, if those are to be sent.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(
        settings: OtlpSettings,
        instance: &str,
        meter: &Arc<Meter>,
    ) -> io::Result<(Self, Option<Arc<Tracer>>)> {
        let resource = Resource::new(&settings, instance);
        let (tracer, spans) = Tracer::new(settings.sampler, settings.spans_waiting_max, Arc::clone(meter));
        let tracer = settings.traces.is_some().then(|| Arc::new(tracer));
        let (begin, begins) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (over, ended) = mpsc::channel(1);
        let meter = Arc::clone(meter);
        let thread = thread::Builder::new().name("holdshort-otlp".to_owned()).spawn(move || {
            let _over = over;
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return tracing::error!("spans and numbers are not sent: there is no event loop for that");
            };
            runtime.block_on(async {
                let sender = Sender {
                    traces: settings.traces.as_ref().and_then(|to| Collector::new(to, &settings)),
                    metrics: settings.metrics.as_ref().and_then(|to| Collector::new(to, &settings)),
                    resource,
                    meter,
                    batch_spans_max: settings.batch_spans_max,
                };
                sender.run(spans, (begins, stopped), settings.spans_every, settings.numbers_every).await;
            });
        })?;
        Ok((Self { begin: Some(begin), stop: Some(stop), thread: Some(thread), ended }, tracer))
    }

    /// From now on numbers of `subject` are sent too.
    pub fn show(&mut self, subject: Arc<Subject>) {
        if let Some(begin) = self.begin.take() {
            // A sender that has ended has said why.
            let _ = begin.send(subject);
        }
    }

    /// Sends what is left, as far as a collector takes it at once.
    pub async fn end(mut self, subject: Arc<Subject>) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(subject);
        }
        let is_over = timeout(LAST_BATCH + LAST_BATCH / 4, self.ended.recv()).await.is_ok();
        if let Some(thread) = self.thread.take().filter(|_| is_over) {
            let _ = thread.join();
        }
    }
}

impl Collector {
    /// None for an address that cannot be used, which the settings have told.
    fn new(to: &settings::Target, settings: &OtlpSettings) -> Option<Self> {
        let endpoint = to.endpoint(settings).ok()?;
        Some(Self { endpoint, headers: to.headers.clone(), timeout: to.timeout, is_failing: false })
    }

    /// Sends `body`; `false` if it was not taken.
    async fn send(&mut self, body: Bytes, what: &'static str) -> bool {
        let until = Instant::now() + self.timeout;
        let mut why = "it did not answer in time".to_owned();
        for attempt in 0..ATTEMPTS_MAX {
            let Ok(sent) = timeout_at(until, self.endpoint.post(&self.headers, body.clone())).await else {
                break;
            };
            let mut pause = PAUSE * (1 << attempt);
            match sent {
                Ok(answer) if answer.status.is_success() => {
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!(what, "the collector takes what is sent again");
                    }
                    return true;
                }
                Ok(answer) => {
                    why = format!("it answered {}", answer.status);
                    // OTLP, "Failures": only these may be tried again.
                    if !matches!(answer.status.as_u16(), 429 | 502 | 503 | 504) {
                        break;
                    }
                    pause = answer.pause().unwrap_or(pause).min(PAUSE_MAX);
                }
                Err(error) => why = error.to_string(),
            }
            if timeout_at(until, sleep(pause)).await.is_err() {
                break;
            }
        }
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                what,
                why,
                "the collector has not taken what was sent; it is counted until it does"
            );
        }
        false
    }
}

/// What sends.
struct Sender {
    traces: Option<Collector>,
    metrics: Option<Collector>,
    resource: Resource,
    meter: Arc<Meter>,
    batch_spans_max: usize,
}

/// Hears of the process when that is there, and when it ends.
type Signals = (oneshot::Receiver<Arc<Subject>>, oneshot::Receiver<Arc<Subject>>);

impl Sender {
    async fn run(
        mut self,
        mut spans: mpsc::Receiver<Span>,
        (mut begins, mut stopped): Signals,
        spans_every: Duration,
        numbers_every: Duration,
    ) {
        let mut subject = None;
        let (mut batch, mut is_open) = (Vec::new(), true);
        let mut numbers = interval(numbers_every);
        numbers.set_missed_tick_behavior(MissedTickBehavior::Delay);
        numbers.tick().await;
        let mut due = Instant::now() + spans_every;
        let last = loop {
            tokio::select! {
                last = &mut stopped => break last.ok(),
                begun = &mut begins, if subject.is_none() && !begins.is_terminated() => subject = begun.ok(),
                taken = spans.recv_many(&mut batch, self.batch_spans_max), if is_open => {
                    // Nobody makes spans any more, or ever did.
                    is_open = taken > 0;
                    if batch.len() == taken {
                        due = Instant::now() + spans_every;
                    }
                    if batch.len() >= self.batch_spans_max {
                        self.send_spans(&mut batch).await;
                    }
                }
                () = tokio::time::sleep_until(due), if !batch.is_empty() => self.send_spans(&mut batch).await,
                _ = numbers.tick() => self.send_numbers(subject.as_deref()).await,
            }
        };
        let end = async {
            while spans.try_recv().map(|span| batch.push(span)).is_ok() {}
            self.send_spans(&mut batch).await;
            self.send_numbers(last.as_deref()).await;
        };
        let _ = timeout(LAST_BATCH, end).await;
    }

    async fn send_spans(&mut self, batch: &mut Vec<Span>) {
        let some = std::mem::take(batch);
        let Some(traces) = self.traces.as_mut().filter(|_| !some.is_empty()) else { return };
        let body = encode::spans(&self.resource, &some);
        if !traces.send(body, "spans").await {
            self.meter.dropped(Dropped::Span, u64::try_from(some.len()).unwrap_or(u64::MAX));
        }
    }

    async fn send_numbers(&mut self, subject: Option<&Subject>) {
        let (Some(metrics), Some(subject)) = (&mut self.metrics, subject) else { return };
        let families = subject.families().await;
        let body = encode::numbers(&self.resource, &families, subject.began());
        metrics.send(body, "numbers").await;
    }
}

/// The type of what is sent.
fn protobuf() -> (HeaderName, HeaderValue) {
    (header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
}
