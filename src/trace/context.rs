//! Where a span is: W3C Trace Context, as it comes in `_meta` of a message or in headers of a request.
//!
//! Read strictly and never written anywhere: what a client sends goes on as it came.

use std::fmt;

/// The longest `tracestate` that is kept, in bytes (W3C Trace Context, section 3.3.1.5, asks for 512 at least).
const STATE_BYTES_MAX: usize = 512;

/// Which trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Which span of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A span, as others name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Its trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Whether whoever began the trace looks at it.
    pub is_sampled: bool,
    /// What other systems want to know again, as it came.
    pub state: Option<Box<str>>,
}

impl TraceContext {
    /// Reads a `traceparent` and the `tracestate` beside it. None for what is none, or names nothing.
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let mut parts = parent.split('-');
        let (version, trace) = (hex::<1>(parts.next()?)?, hex::<16>(parts.next()?)?);
        let (span, flags) = (hex::<8>(parts.next()?)?, hex::<1>(parts.next()?)?);
        // Version 0 has four parts; later ones may have more, and 255 is none.
        if version == [0xff]
            || (version == [0] && parts.next().is_some())
            || trace == [0; 16]
            || span == [0; 8]
        {
            return None;
        }
        let is_kept = |state: &&str| {
            state.len() <= STATE_BYTES_MAX
                && !state.is_empty()
                && state.bytes().all(|b| (b' '..=b'~').contains(&b))
        };
        Some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            is_sampled: flags[0] & 1 == 1,
            state: state.filter(is_kept).map(Into::into),
        })
    }
}

/// `N` bytes in small hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_parent_is_read_as_the_standard_says() {
        let read = TraceContext::parse(PARENT, Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")).unwrap();
        assert_eq!(read.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(read.is_sampled && read.state.is_some());
        assert!(!TraceContext::parse(&PARENT.replace("-01", "-00"), None).unwrap().is_sampled);
        assert!(
            TraceContext::parse(&PARENT.replacen("00-", "01-", 1).replace("-01", "-01-more"), None).is_some()
        );
    }

    #[test]
    fn what_names_nothing_is_no_parent() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad}");
        }
        for bad in [&*"a".repeat(STATE_BYTES_MAX + 1), "", "a=b\r\nx-evil: 1", "a=b\n", "a=\u{1b}[2J", "a=é"]
        {
            let read = TraceContext::parse(PARENT, Some(bad)).unwrap();
            assert_eq!(read.state, None, "the parent counts without {bad:?}");
        }
    }
}
