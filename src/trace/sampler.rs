//! Which traces are looked at (OpenTelemetry, `OTEL_TRACES_SAMPLER`).

use super::context::{TraceContext, TraceId};

/// Which traces are looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether whoever began a trace has decided.
    follows_parent: bool,
    /// The share of the others.
    ratio: f64,
}

impl Default for Sampler {
    /// What others have begun as they say, and all of our own: `parentbased_always_on`.
    fn default() -> Self {
        Self { follows_parent: true, ratio: 1.0 }
    }
}

impl Sampler {
    /// The sampler of this name, with the argument that belongs to it. None if there is none, or the argument is none.
    pub fn named(name: &str, argument: Option<&str>) -> Option<Self> {
        let (follows_parent, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let ratio = match root {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => match argument {
                None | Some("") => 1.0,
                Some(argument) => argument.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))?,
            },
            _ => return None,
        };
        Some(Self { follows_parent, ratio })
    }

    /// Whether a span of `trace` below `parent` is made.
    pub(super) fn wants(self, trace: TraceId, parent: Option<&TraceContext>) -> bool {
        if let Some(parent) = parent.filter(|_| self.follows_parent) {
            return parent.is_sampled;
        }
        // The same for all who look at the trace: by its id, of which the last seven bytes are random (W3C Trace Context 2).
        let random = trace.0[9..].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        #[expect(clippy::cast_precision_loss, reason = "56 bits: a share is not more exact than that")]
        let share = random as f64 / (1_u64 << 56) as f64;
        share < self.ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_those_of_opentelemetry() {
        let trace = |last: u8| TraceId([last; 16]);
        let parent = |is_sampled| {
            let flags = if is_sampled { "01" } else { "00" };
            let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            TraceContext::parse(&text, None)
        };
        for (name, argument, parent, trace, wanted) in [
            ("always_on", None, parent(false), trace(1), true),
            ("always_off", None, parent(true), trace(1), false),
            ("parentbased_always_on", None, parent(false), trace(1), false),
            ("parentbased_always_on", None, None, trace(1), true),
            ("parentbased_always_off", None, parent(true), trace(1), true),
            ("parentbased_always_off", None, None, trace(1), false),
            ("traceidratio", Some("0.5"), None, trace(0x7f), true),
            ("traceidratio", Some("0.5"), None, trace(0x80), false),
            ("parentbased_traceidratio", Some("0"), None, trace(0), false),
        ] {
            let sampler = Sampler::named(name, argument).unwrap();
            assert_eq!(sampler.wants(trace, parent.as_ref()), wanted, "{name} {argument:?}");
        }
        for (name, argument) in
            [("sometimes", None), ("traceidratio", Some("2")), ("traceidratio", Some("x"))]
        {
            assert_eq!(Sampler::named(name, argument), None);
        }
    }
}
