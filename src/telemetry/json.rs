//! Lines of the log as JSON, one object each: for machines that read it. Members: `timestamp`, `level`, `message`, and the fields of the
//! line, such as `hold`.
//!
//! Used by `log`. Peers' texts are values of JSON and can end nothing.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// The longest text of one member, in bytes; a longer one is cut.
const TEXT_BYTES_MAX: usize = 2 << 10;

/// The form of a line.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut members = Members(begun(event.metadata().level().as_str()));
        event.record(&mut members);
        writeln!(writer, "{}", Value::Object(members.0))
    }
}

/// A line that says `message`.
pub(super) fn line(level: &str, message: &str) -> String {
    let mut members = begun(level);
    members.insert("message".to_owned(), text(message));
    Value::Object(members).to_string()
}

fn begun(level: &str) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("timestamp".to_owned(), Value::String(Timestamp::now().to_string()));
    members.insert("level".to_owned(), Value::String(level.to_owned()));
    members
}

/// What a line has.
struct Members(Map<String, Value>);

impl Members {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, text(&format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, text(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut all = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            all.push_str(": ");
            all.push_str(&error.to_string());
            source = error.source();
        }
        self.put(field, text(&all));
    }
}

/// `whole`, or as much as a line has room for.
fn text(whole: &str) -> Value {
    if whole.len() <= TEXT_BYTES_MAX {
        return Value::String(whole.to_owned());
    }
    let end = whole.floor_char_boundary(TEXT_BYTES_MAX);
    Value::String(format!("{} (cut)", &whole[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_end_its_line_and_a_long_one_is_cut() {
        let line = line("WARN", "a\n{\"level\":\"none\"}");
        assert!(!line.contains('\n'));
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["level"], &read["message"]), (&"WARN".into(), &"a\n{\"level\":\"none\"}".into()));
        let long = text(&"é".repeat(TEXT_BYTES_MAX));
        assert!(long.as_str().unwrap().len() <= TEXT_BYTES_MAX + 6);
    }
}
