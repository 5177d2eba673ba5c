//! What a process shows of its work while it runs: numbers and health on a listener, spans and numbers sent to a collector.
//!
//! Used by `run`, `serve` and `desk`. Each of the two is there only if somebody asked for it; neither keeps a process from its work,
//! but an address that was asked for and cannot be had is an error at the start.

use std::sync::Arc;

use anyhow::Context;

use super::render;
use crate::{
    config::TelemetryAddress,
    meter::Meter,
    telemetry::{Listener, Otlp, OtlpSettings, Subject},
    trace::Tracer,
};

/// What is shown of one process.
pub(super) struct Shown {
    subject: Arc<Subject>,
    listener: Option<Listener>,
    otlp: Option<Otlp>,
}

/// Begins to send what the environment asks for, of the process `instance`; with it what makes spans, if those are sent.
pub(super) fn collector(instance: &str, meter: &Arc<Meter>) -> (Option<Otlp>, Option<Arc<Tracer>>) {
    let settings = match OtlpSettings::from_environment() {
        Ok(Some(settings)) => settings,
        Ok(None) => return (None, None),
        Err(error) => {
            tracing::warn!(%error, "nothing is sent to a collector");
            return (None, None);
        }
    };
    match Otlp::start(settings, instance, meter) {
        Ok((otlp, tracer)) => (Some(otlp), tracer),
        Err(error) => {
            tracing::warn!(%error, "nothing is sent to a collector: there is no thread for it");
            (None, None)
        }
    }
}

impl Shown {
    /// Shows `subject` to the collector of `otlp`.
    pub(super) fn new(subject: Subject, mut otlp: Option<Otlp>) -> Self {
        let subject = Arc::new(subject);
        if let Some(otlp) = &mut otlp {
            otlp.show(Arc::clone(&subject));
        }
        Self { subject, listener: None, otlp }
    }

    /// Shows it at `address` too, if somebody asked for that.
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub(super) async fn listen(&mut self, address: Option<TelemetryAddress>) -> anyhow::Result<()> {
        let Some(address) = address else { return Ok(()) };
        let wanted = address.listen;
        let listener = Listener::start(address, Arc::clone(&self.subject)).await;
        let listener = listener.with_context(|| format!("cannot show numbers at {wanted}"))?;
        render::talk(&format!("numbers are at http://{}/metrics", listener.address()));
        self.listener = Some(listener);
        Ok(())
    }

    /// From now on the process takes nothing new, and says so.
    pub(super) fn stopping(&self) {
        self.subject.stopping();
    }

    /// Shows no more, but for what a collector takes at once.
    pub(super) async fn end(self) {
        drop(self.listener);
        if let Some(otlp) = self.otlp {
            otlp.end(self.subject).await;
        }
    }
}
