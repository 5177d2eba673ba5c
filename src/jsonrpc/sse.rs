//! Server-sent events as MCP uses them: a stream of bytes cut into events, without changing a byte of them.
//!
//! Used by the HTTP transport on what a server streams (WHATWG HTML, "Server-sent events", "Parsing an event stream"). Lines
//! end at CR, LF or CRLF. It keeps what arrived for forwarding and says what a client will read; it never waits and never
//! repairs.

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr2};

/// The byte order mark that a stream may begin with; it is no part of the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event, or a block of comments, as it arrived with the empty line that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The bytes.
    pub raw: Bytes,
}

/// An event has grown over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the server is longer than {0} bytes")]
pub struct EventTooLarge(usize);

/// Cuts a stream into events.
#[derive(Debug)]
pub struct Events {
    /// What has arrived, without what was finished before it came.
    pending: Bytes,
    /// Where in it the event begins that is being read.
    begin: usize,
    /// Where in `pending` the line begins that is being read.
    line_start: usize,
    /// Up to where that line has no end.
    searched: usize,
    /// Whether the last byte taken was a CR: a LF that follows belongs to it.
    after_cr: bool,
    /// Whether nothing has arrived yet.
    at_start: bool,
    event_bytes_max: usize,
}

impl Events {
    /// Nothing has arrived yet; an event may have `event_bytes_max` bytes.
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            pending: Bytes::new(),
            begin: 0,
            line_start: 0,
            searched: 0,
            after_cr: false,
            at_start: true,
            event_bytes_max,
        }
    }

    /// More of the stream has arrived. Copies only while an event is incomplete, or what came before has not been asked for.
    pub fn push(&mut self, mut chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        if std::mem::take(&mut self.at_start) && chunk.starts_with(BYTE_ORDER_MARK) {
            chunk = chunk.slice(BYTE_ORDER_MARK.len()..);
        }
        if std::mem::take(&mut self.after_cr) && chunk.first() == Some(&b'\n') {
            // The second half of a line's end whose first half ended the event before.
            chunk = chunk.slice(1..);
        }
        let unread = self.unread();
        self.line_start -= self.begin;
        self.searched -= self.begin;
        self.begin = 0;
        if unread.is_empty() {
            self.pending = chunk;
            return;
        }
        self.pending = Bytes::new();
        let mut joined = unread.try_into_mut().unwrap_or_else(|shared| {
            let mut joined = BytesMut::with_capacity((2 * shared.len()).max(shared.len() + chunk.len()));
            joined.extend_from_slice(&shared);
            joined
        });
        joined.extend_from_slice(&chunk);
        self.pending = joined.freeze();
    }

    /// What has arrived and is no part of an event that was given out. The events that come are pieces of it, one behind the
    /// other from its beginning.
    pub fn unread(&self) -> Bytes {
        self.pending.slice(self.begin..)
    }

    /// The next event that is complete.
    ///
    /// # Errors
    /// When what has arrived of an event is over the limit; nothing of the stream can be used then.
    pub fn next_event(&mut self) -> Result<Option<Event>, EventTooLarge> {
        while let Some(found) = memchr2(b'\r', b'\n', &self.pending[self.searched..]) {
            let end = self.searched + found;
            let rest = &self.pending[end..];
            let is_empty_line = end == self.line_start;
            if rest == b"\r" && !is_empty_line {
                // Whether a LF belongs to it is not known yet, and this line ends no event.
                self.searched = end;
                return self.not_too_large();
            }
            let next = end + if rest.starts_with(b"\r\n") { 2 } else { 1 };
            self.line_start = next;
            self.searched = next;
            if is_empty_line {
                self.after_cr = rest == b"\r";
                let raw = self.pending.slice(self.begin..next);
                self.begin = next;
                return Ok(Some(Event { raw }));
            }
        }
        self.searched = self.pending.len();
        if self.begin == self.pending.len() {
            // Nothing of it is needed any more.
            self.pending = Bytes::new();
            (self.begin, self.line_start, self.searched) = (0, 0, 0);
        }
        self.not_too_large()
    }

    fn not_too_large(&self) -> Result<Option<Event>, EventTooLarge> {
        if self.pending.len() - self.begin > self.event_bytes_max {
            return Err(EventTooLarge(self.event_bytes_max));
        }
        Ok(None)
    }
}

impl Event {
    /// Its lines without their ends, the empty one left out.
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.raw;
        std::iter::from_fn(move || {
            loop {
                if rest.is_empty() {
                    return None;
                }
                let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                let line = &rest[..end];
                let skip = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
                rest = rest.get(end + skip..).unwrap_or_default();
                if !line.is_empty() {
                    return Some(line);
                }
            }
        })
    }

    /// What a client reads in it.
    pub fn fields(&self) -> Fields<'_> {
        let mut fields = Fields {
            event: self,
            name: b"message",
            id: None,
            retry_ms: None,
            data: None,
            joined: None,
            may_resume: false,
        };
        for line in self.lines() {
            let (name, value) = match memchr(b':', line) {
                Some(colon) => (&line[..colon], &line[colon + 1..]),
                None => (line, &line[line.len()..]),
            };
            fields.take(name, value.strip_prefix(b" ").unwrap_or(value));
            fields.may_resume |= resumes(line);
        }
        fields
    }
}

/// Whether a line has to do with coming back for the rest of a stream.
fn resumes(line: &[u8]) -> bool {
    line.starts_with(b"id") || line.starts_with(b"retry")
}

/// What a client reads in an event (as above, "Interpreting an event stream").
#[derive(Debug)]
pub struct Fields<'a> {
    event: &'a Event,
    /// The event's type; `message` where it names none. Of a repeated field the last counts.
    pub name: &'a [u8],
    /// The id at which a client would resume. Of a repeated field the last counts; one with a NUL is none.
    pub id: Option<&'a [u8]>,
    /// How long a client should wait before it comes back, in milliseconds.
    pub retry_ms: Option<u64>,
    /// The first `data` line.
    data: Option<&'a [u8]>,
    /// All of them, where there are several.
    joined: Option<BytesMut>,
    may_resume: bool,
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b"data" => match (self.data, &mut self.joined) {
                (None, _) => self.data = Some(value),
                (Some(first), joined) => {
                    let joined = joined.get_or_insert_with(|| BytesMut::from(first));
                    joined.extend_from_slice(b"\n");
                    joined.extend_from_slice(value);
                }
            },
            b"event" => self.name = if value.is_empty() { b"message" } else { value },
            b"id" if !value.contains(&0) => self.id = Some(value),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry_ms = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            }
            _ => {}
        }
    }

    /// What a client reads as its data: the values of its `data` lines. `None` if there are none, or all are empty.
    pub fn data(&self) -> Option<Bytes> {
        match &self.joined {
            None => self.data.filter(|data| !data.is_empty()).map(|data| self.event.raw.slice_ref(data)),
            Some(joined) => joined.iter().any(|&byte| byte != b'\n').then(|| joined.clone().freeze()),
        }
    }

    /// Its data, if it is an event of the type that carries messages.
    pub fn message(&self) -> Option<Bytes> {
        self.data().filter(|_| self.name == b"message")
    }

    /// An event that says `message`, one JSON text, where this one says something else; with its `id` where a client may resume.
    pub fn saying(&self, message: &[u8], is_resumable: bool) -> Bytes {
        match self.id.filter(|_| is_resumable) {
            Some(id) => [b"id: ", id, b"\n", &*event_of(message)].concat().into(),
            None => event_of(message),
        }
    }

    /// The event without its `id` and `retry` lines, for revisions that have no resumption. `None` where it has none.
    pub fn without_resumption(&self) -> Option<Bytes> {
        if !self.may_resume {
            return None;
        }
        let mut kept = BytesMut::with_capacity(self.event.raw.len());
        for line in self.event.lines().filter(|line| !resumes(line)) {
            kept.extend_from_slice(line);
            kept.extend_from_slice(b"\n");
        }
        if !kept.is_empty() {
            kept.extend_from_slice(b"\n");
        }
        Some(kept.freeze())
    }
}

/// `message`, one JSON text, as an event of its own. A line end between its tokens becomes one between `data` lines, which
/// means the same.
pub fn event_of(message: &[u8]) -> Bytes {
    let message = message.trim_ascii();
    let mut event = BytesMut::with_capacity(message.len() + 32);
    event.extend_from_slice(b"event: message\n");
    let mut rest = message;
    loop {
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(&rest[..end]);
        event.extend_from_slice(b"\n");
        if end == rest.len() {
            break;
        }
        let skip = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + skip..];
    }
    event.extend_from_slice(b"\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<(String, Option<String>)> {
        let mut events = Events::new(1000);
        let mut found = Vec::new();
        for chunk in chunks {
            events.push(Bytes::copy_from_slice(chunk));
            while let Some(event) = events.next_event().unwrap() {
                let fields = event.fields();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                found.push((text(fields.name), fields.data().map(|data| text(&data))));
            }
        }
        found
    }

    fn message(data: &str) -> (String, Option<String>) {
        ("message".to_owned(), Some(data.to_owned()))
    }

    #[test]
    fn lines_end_in_every_way_that_the_format_has() {
        for text in ["data: a\n\ndata: b\n\n", "data: a\r\rdata: b\r\r", "data: a\r\n\r\ndata: b\r\n\r\n"] {
            assert_eq!(cut(&[text.as_bytes()]), [message("a"), message("b")], "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            let found: Vec<_> = cut(&bytes).into_iter().filter(|(_, data)| data.is_some()).collect();
            assert_eq!(found, [message("a"), message("b")], "byte by byte: {text:?}");
        }
    }

    #[test]
    fn fields_are_read_as_clients_read_them() {
        assert_eq!(cut(&[b"\xef\xbb\xbfdata:x\n\n"]), [message("x")], "a byte order mark is skipped");
        assert_eq!(cut(&[b"data: one\ndata:  two\n\n"]), [message("one\n two")]);
        assert_eq!(cut(&[b": keepalive\n\n"]), [("message".to_owned(), None)]);
        assert_eq!(
            cut(&[b"event: endpoint\ndata: /m\n\n"]),
            [("endpoint".to_owned(), Some("/m".to_owned()))]
        );
        assert_eq!(cut(&[b"id: 1\ndata:\n\n"]), [("message".to_owned(), None)], "a priming event");
        assert_eq!(cut(&[b"data\ndatax: no\n\n"]), [("message".to_owned(), None)]);
        assert_eq!(cut(&[b"data\ndata:\ndata: x\n\n"]), [message("\n\nx")]);
        assert_eq!(cut(&[b"event: one\nevent:two\nevent\ndata: x\n\n"]), [message("x")], "the last counts");
        assert_eq!(cut(&[b"data: {\"a\":\r1}\n\n"]), [message("{\"a\":")], "a bare CR ends the line");
        assert_eq!(cut(&[b"data: a"]), [], "an event without an end is none");
    }

    #[test]
    fn the_bytes_of_all_events_are_those_that_came() {
        let text: &[u8] = b": hi\r\n\nid: 4\ndata: a\n\n\ndata: b\r\rdata: c\n\n";
        for size in 1..text.len() {
            let mut events = Events::new(1000);
            let mut all = Vec::new();
            for chunk in text.chunks(size) {
                events.push(Bytes::copy_from_slice(chunk));
                while let Some(event) = events.next_event().unwrap() {
                    all.extend_from_slice(&event.raw);
                }
            }
            assert_eq!(all, text, "in chunks of {size}");
        }
    }

    #[test]
    fn an_event_that_never_ends_is_an_error_at_the_limit() {
        let mut events = Events::new(100);
        events.push(Bytes::from_static(&[b'x'; 100]));
        assert_eq!(events.next_event(), Ok(None));
        events.push(Bytes::from_static(b"y"));
        assert_eq!(events.next_event(), Err(EventTooLarge(100)));
    }

    #[test]
    fn ids_can_be_left_out_and_a_message_becomes_an_event() {
        let event = Event { raw: Bytes::from_static(b"id: 7\nretry: 5\ndata: {}\n\n") };
        let fields = event.fields();
        assert_eq!((fields.id, fields.retry_ms), (Some(&b"7"[..]), Some(5)));
        assert_eq!(fields.without_resumption().unwrap(), "data: {}\n\n");
        assert_eq!(
            Event { raw: Bytes::from_static(b"id: 7\n\n") }.fields().without_resumption().unwrap(),
            ""
        );
        assert_eq!(Event { raw: Bytes::from_static(b"data: id\n\n") }.fields().without_resumption(), None);
        assert_eq!(event_of(b"{\"a\":1}\n"), "event: message\ndata: {\"a\":1}\n\n");
        assert_eq!(event_of(b"{\r\n\"a\":1\n}"), "event: message\ndata: {\ndata: \"a\":1\ndata: }\n\n");
    }
}
