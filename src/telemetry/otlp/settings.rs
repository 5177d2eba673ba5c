//! What the environment says of a collector, in the variables of OpenTelemetry.
//!
//! Read once, at the start. Nothing is sent unless they name a collector. What they ask for and cannot be had is told, and nothing is
//! sent: a gate does its work without being watched.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};

use super::protobuf;
use crate::{channels::endpoint::Endpoint, trace::Sampler};

/// The collector of whoever names none, but asks for one (OTLP, "Endpoint URLs for OTLP/HTTP").
const USUAL: &str = "http://localhost:4318";

/// How long a collector may take, unless it is said otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be sent, and where.
#[derive(Clone, Debug)]
pub struct OtlpSettings {
    pub(super) traces: Option<Target>,
    pub(super) metrics: Option<Target>,
    pub(super) sampler: Sampler,
    pub(super) service: String,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) spans_waiting_max: usize,
    pub(super) batch_spans_max: usize,
    pub(super) spans_every: Duration,
    pub(super) numbers_every: Duration,
    roots: Option<PathBuf>,
}

/// Where one kind of signal goes.
#[derive(Clone, Debug)]
pub(super) struct Target {
    url: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) timeout: Duration,
}

/// Why nothing is sent, although somebody asked for it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {why}")]
pub struct BadSettings {
    variable: String,
    why: String,
}

impl Target {
    /// What it was checked to be when it was read.
    pub(super) fn endpoint(&self, settings: &OtlpSettings) -> Result<Endpoint, String> {
        Endpoint::new(&self.url, settings.roots.as_deref(), true)
    }
}

/// The variables of one process.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

fn bad<T>(variable: impl Into<String>, why: impl Into<String>) -> Result<T, BadSettings> {
    Err(BadSettings { variable: variable.into(), why: why.into() })
}

impl Variables<'_> {
    /// One that says something.
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// That of one kind of signal, or that of all: with the name of the one that counts.
    fn of(&self, signal: &str, name: &str) -> Option<(String, String)> {
        let names = [format!("OTEL_EXPORTER_OTLP_{signal}_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
        names.into_iter().find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn number(&self, name: &str, usual: u64) -> Result<u64, BadSettings> {
        match self.get(name) {
            None => Ok(usual),
            Some(text) => match text.parse() {
                Ok(number) if number > 0 => Ok(number),
                _ => bad(name, "this is not a positive number"),
            },
        }
    }

    /// Where `signal` goes, if it goes anywhere.
    fn target(&self, signal: &str, path: &str) -> Result<Option<Target>, BadSettings> {
        let exporter = format!("OTEL_{signal}_EXPORTER");
        let wanted = self.get(&exporter);
        match wanted.as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(_) => return bad(exporter, "only `otlp` and `none` are known"),
        }
        let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
        let url = match (self.get(&own), self.get("OTEL_EXPORTER_OTLP_ENDPOINT")) {
            (Some(url), _) => url,
            (None, Some(base)) => format!("{}{path}", base.trim_end_matches('/')),
            (None, None) if wanted.is_some() => format!("{USUAL}{path}"),
            (None, None) => return Ok(None),
        };
        if let Some((name, protocol)) = self.of(signal, "PROTOCOL")
            && protocol != "http/protobuf"
        {
            return bad(name, "only `http/protobuf` is spoken");
        }
        if let Some((name, compression)) = self.of(signal, "COMPRESSION")
            && compression != "none"
        {
            return bad(name, "nothing is compressed");
        }
        let mut headers = vec![protobuf()];
        if let Some((name, written)) = self.of(signal, "HEADERS") {
            for (key, value) in
                pairs(&written).ok_or(()).or_else(|()| bad(&*name, "these are not headers"))?
            {
                let Ok(mut value) = HeaderValue::try_from(value) else {
                    return bad(name, "this is not a header");
                };
                let Ok(key) = HeaderName::try_from(key) else { return bad(name, "this is not a header") };
                value.set_sensitive(true);
                headers.push((key, value));
            }
        }
        let timeout = match self.of(signal, "TIMEOUT") {
            None => TIMEOUT,
            Some((name, _)) => Duration::from_millis(self.number(&name, 1)?),
        };
        Ok(Some(Target { url, headers, timeout }))
    }
}

impl OtlpSettings {
    /// What the environment says. None: nothing is to be sent.
    ///
    /// # Errors
    ///
    /// When it asks for something that cannot be had.
    pub fn from_environment() -> Result<Option<Self>, BadSettings> {
        Self::of(&|name| std::env::var(name).ok())
    }

    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, BadSettings> {
        let variables = Variables(variable);
        if variables.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let traces = variables.target("TRACES", "/v1/traces")?;
        let metrics = variables.target("METRICS", "/v1/metrics")?;
        if traces.is_none() && metrics.is_none() {
            return Ok(None);
        }
        let sampler = match variables.get("OTEL_TRACES_SAMPLER") {
            None => Sampler::default(),
            Some(name) => match Sampler::named(&name, variables.get("OTEL_TRACES_SAMPLER_ARG").as_deref()) {
                Some(sampler) => sampler,
                None => {
                    return bad("OTEL_TRACES_SAMPLER", "there is no such sampler, or its argument is none");
                }
            },
        };
        let attributes = match variables.get("OTEL_RESOURCE_ATTRIBUTES") {
            None => Vec::new(),
            Some(written) => match pairs(&written) {
                Some(attributes) => attributes,
                None => return bad("OTEL_RESOURCE_ATTRIBUTES", "these are not names with values"),
            },
        };
        let named =
            || attributes.iter().find(|(name, _)| name == "service.name").map(|(_, value)| value.clone());
        let service =
            variables.get("OTEL_SERVICE_NAME").or_else(named).unwrap_or_else(|| "holdshort".to_owned());
        let waiting = variables.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?.min(1 << 16);
        let batch = variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.min(waiting);
        let settings = Self {
            traces,
            metrics,
            sampler,
            service,
            attributes,
            spans_waiting_max: usize::try_from(waiting).unwrap_or(2048),
            batch_spans_max: usize::try_from(batch).unwrap_or(512),
            spans_every: Duration::from_millis(variables.number("OTEL_BSP_SCHEDULE_DELAY", 5000)?),
            numbers_every: Duration::from_millis(variables.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000)?),
            roots: variables.get("OTEL_EXPORTER_OTLP_CERTIFICATE").map(PathBuf::from),
        };
        for target in settings.traces.iter().chain(&settings.metrics) {
            if let Err(why) = target.endpoint(&settings) {
                return bad("OTEL_EXPORTER_OTLP_ENDPOINT", why);
            }
        }
        Ok(Some(settings))
    }
}

/// `name=value,name=value`, with what is written as `%2C` decoded (W3C Baggage, which the variables follow).
fn pairs(written: &str) -> Option<Vec<(String, String)>> {
    let parts = written.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((decoded(name.trim())?, decoded(value.trim())?))
        })
        .collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<OtlpSettings>, BadSettings> {
        let find = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        OtlpSettings::of(&find)
    }

    #[test]
    fn nothing_is_sent_unless_a_collector_is_named() {
        for nothing in [
            &[][..],
            &[("OTEL_SERVICE_NAME", "x")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "True")],
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
                ("OTEL_TRACES_EXPORTER", "none"),
                ("OTEL_METRICS_EXPORTER", "none"),
            ],
        ] {
            assert!(read(nothing).unwrap().is_none(), "{nothing:?}");
        }
    }

    #[test]
    fn each_signal_goes_where_it_is_sent() {
        let settings = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/base/"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:1/as-it-is"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x%2Cy, tenant=eu"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment=prod"),
        ]);
        let settings = settings.unwrap().unwrap();
        let (traces, metrics) = (settings.traces.unwrap(), settings.metrics.unwrap());
        assert_eq!((&*traces.url, &*metrics.url), ("http://c:4318/base/v1/traces", "http://m:1/as-it-is"));
        assert_eq!(traces.headers[1], ("authorization".parse().unwrap(), "Bearer x,y".parse().unwrap()));
        assert_eq!((traces.timeout, metrics.timeout), (Duration::from_millis(250), TIMEOUT));
        assert_eq!(settings.service, "other");
        let alone = read(&[("OTEL_TRACES_EXPORTER", "otlp")]).unwrap().unwrap();
        assert_eq!(
            (&*alone.traces.unwrap().url, alone.metrics.is_none()),
            ("http://localhost:4318/v1/traces", true)
        );
    }

    #[test]
    fn what_cannot_be_had_is_told_by_its_variable() {
        let with = |name: &str, value: &str| {
            read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), (name, value)]).unwrap_err().variable
        };
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "no-value"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
        ] {
            assert_eq!(with(name, value), name);
        }
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c")]).is_err());
    }
}
