//! What the program says in its log: on stderr, never on stdout, which belongs to the protocol or to data.
//!
//! `HOLDSHORT_LOG` sets what is said (`info`, `debug`, `holdshort::transport=trace`); the default is warnings. No argument
//! of a call and no secret is ever a field of a log line.
//!
//! Nothing waits for stderr: nobody may be reading it. A thread of its own writes; what does not fit its queue is left out
//! and counted, and so is what one place in the code says too often, since peers can make it say so.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IsTerminal, Write},
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber, callsite::Identifier};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::MakeWriter,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use super::json;

/// The environment variable that sets what is logged.
pub const LOG_VARIABLE: &str = "HOLDSHORT_LOG";

/// Lines that may wait to be written.
const LINES_WAITING_MAX: usize = 1024;

/// The longest line that is written, in bytes; a longer one is cut.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Warnings and errors of one place in the code that are written in one [`WINDOW`].
const WARNINGS_MAX: u32 = 10;

/// The time in which [`WARNINGS_MAX`] are written, and after which those that were left out are told of.
const WINDOW: Duration = Duration::from_secs(1);

/// How long the end of the program waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(100);

/// Lines that this process has left out so far.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How many lines this process has left out so far.
pub(super) fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// The log while it is written; dropping it writes what still waits, as far as somebody reads it soon.
#[derive(Debug)]
#[must_use = "dropping it ends the log"]
pub struct Log {
    queue: Arc<Queue>,
}

/// In which form the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether the log is JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// `text`, which is said to a person on stderr, as one line of a log that machines read; none where people read it.
pub fn as_json(text: &str) -> Option<String> {
    IS_JSON.load(Ordering::Relaxed).then(|| json::line(Level::INFO.as_str(), text))
}

/// Begins to log. Call it once, in `main`, and keep what it gives to the end of the program.
pub fn init(format: LogFormat) -> Log {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = Log::start(io::stderr());
    // A second call would be a mistake of this program, and harmless.
    let lines = Lines(Arc::clone(&log.queue));
    let sparing = Sparing(Arc::clone(&log.queue));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
    let _ = match format {
        LogFormat::Text => {
            let people = subscriber.with_ansi(io::stderr().is_terminal()).with_target(false);
            people.finish().with(sparing).try_init()
        }
        LogFormat::Json => {
            IS_JSON.store(true, Ordering::Relaxed);
            subscriber.with_ansi(false).event_format(json::JsonLines).finish().with(sparing).try_init()
        }
    };
    log
}

impl Log {
    /// A log that goes to `output`, by a thread that nobody ever waits for.
    fn start(mut output: impl Write + Send + 'static) -> Self {
        let queue = Arc::new(Queue::default());
        let waiting = Arc::clone(&queue);
        // Where the system gives no thread there is no log: whatever could be said of it would have to wait for stderr.
        let _ = thread::Builder::new().name("holdshort-log".to_owned()).spawn(move || {
            while let Some(text) = waiting.next() {
                // A reader that has gone misses what is said; nobody else can be told.
                let _ = output.write_all(&text);
            }
        });
        Self { queue }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.ending = true;
        self.queue.changed.notify_all();
        let unwritten = |waiting: &mut Waiting| !waiting.ended;
        drop(self.queue.changed.wait_timeout_while(waiting, LAST_LINES, unwritten));
    }
}

/// What waits between those who log and the thread that writes.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    /// Lines that were left out and that no line tells of yet, and since when.
    left_out: Option<(u64, Instant)>,
    /// What each place in the code has said since when.
    said: HashMap<Identifier, (u32, Instant)>,
    /// The program ends: what waits is written, and then no more.
    ending: bool,
    /// All is written.
    ended: bool,
}

impl Waiting {
    fn leave_out(&mut self, now: Instant) {
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        self.left_out.get_or_insert((0, now)).0 += 1;
    }

    /// Whether this place in the code may say something more now.
    fn may_say(&mut self, place: Identifier, now: Instant) -> bool {
        let (said, since) = self.said.entry(place).or_insert((0, now));
        if now.duration_since(*since) >= WINDOW {
            (*said, *since) = (0, now);
        }
        *said = said.saturating_add(1);
        *said <= WARNINGS_MAX
    }
}

impl Queue {
    /// No code panics while it holds this lock; should one, what waits is still whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.lines.len() >= LINES_WAITING_MAX {
            return waiting.leave_out(Instant::now());
        }
        let mut kept = line[..line.len().min(LINE_BYTES_MAX)].to_vec();
        if kept.len() < line.len() {
            kept.extend_from_slice(b" (cut)\n");
        }
        waiting.lines.push_back(kept);
        self.changed.notify_all();
    }

    /// What is to be written next. Waits for it; None when the program ends and all is written.
    fn next(&self) -> Option<Vec<u8>> {
        let mut waiting = self.lock();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                return Some(line);
            }
            let told_in = waiting.left_out.map(|(_, since)| WINDOW.saturating_sub(since.elapsed()));
            if told_in.is_some_and(|wait| wait.is_zero() || waiting.ending) {
                let (count, _) = mem::take(&mut waiting.left_out)?;
                let said = format!("{count} more log lines were left out, because there were too many");
                let line = as_json(&said).unwrap_or_else(|| format!("holdshort: {said}"));
                return Some(format!("{line}\n").into_bytes());
            }
            if waiting.ending {
                waiting.ended = true;
                self.changed.notify_all();
                return None;
            }
            let wait = told_in.unwrap_or(Duration::MAX);
            waiting = self.changed.wait_timeout(waiting, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Counts what one place in the code says too often, instead of letting it be written.
struct Sparing(Arc<Queue>);

impl<S: Subscriber> Layer<S> for Sparing {
    /// Asked before anything is formatted: a peer that makes us say much must not make us work as much.
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let place = event.metadata();
        // What is said only where it was asked for is said whole.
        if *place.level() > Level::WARN {
            return true;
        }
        let (mut waiting, now) = (self.0.lock(), Instant::now());
        let may_say = waiting.may_say(place.callsite(), now);
        if !may_say {
            waiting.leave_out(now);
        }
        may_say
    }
}

/// Gives each log line its way into the queue.
struct Lines(Arc<Queue>);

/// One log line on its way.
struct Line<'a>(&'a Queue);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

impl Write for Line<'_> {
    /// Takes one line whole: that is how they are given.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Somebody who reads each line when the test says so.
    struct Reader {
        may_read: Receiver<()>,
        read: Sender<String>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.may_read.recv().map_err(io::Error::other)?;
            self.read.send(String::from_utf8_lossy(line).into_owned()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_is_left_out_is_counted() {
        let ((reads, may_read), (read, lines)) = (channel(), channel());
        let log = Log::start(Reader { may_read, read });
        // The thread may have taken one line by now, and waits with it.
        let (given, kept) = (LINES_WAITING_MAX + 100, [LINES_WAITING_MAX, LINES_WAITING_MAX + 1]);
        for number in 0..given {
            log.queue.push(format!("{number}\n").as_bytes());
        }
        let queue = Arc::clone(&log.queue);
        let began = Instant::now();
        drop(log);
        assert!(began.elapsed() < LAST_LINES * 5, "the end does not wait for a reader either");
        (0..given).for_each(|_| reads.send(()).unwrap());
        let mut written: Vec<_> = lines.iter().take_while(|line| !line.contains("left out")).collect();
        assert!(kept.contains(&written.len()), "{} lines", written.len());
        assert_eq!(written.remove(0), "0\n");
        assert!(queue.lock().left_out.is_none(), "they were told of");
    }

    #[test]
    fn a_log_that_is_read_is_written_to_its_end() {
        let ((reads, may_read), (read, lines)) = (channel(), channel());
        (0..3).for_each(|_| reads.send(()).unwrap());
        let log = Log::start(Reader { may_read, read });
        log.queue.push(b"one\n");
        log.queue.push(&vec![b'x'; LINE_BYTES_MAX + 1]);
        drop(log);
        assert_eq!(lines.recv().unwrap(), "one\n");
        let long = lines.recv().unwrap();
        assert!(long.ends_with("x (cut)\n") && long.len() < LINE_BYTES_MAX + 10);
        assert!(lines.recv().is_err(), "and no more");
    }

    #[test]
    fn one_place_in_the_code_says_only_so_much_at_once() {
        let queue = Arc::new(Queue::default());
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_writer(Lines(Arc::clone(&queue)))
            .finish()
            .with(Sparing(Arc::clone(&queue)));
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..1000 {
                tracing::warn!(number, "junk");
                tracing::info!(number, "news");
            }
            tracing::warn!("something else");
        });
        let waiting = queue.lock();
        let count = |word| {
            let lines = waiting.lines.iter();
            lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
        };
        assert!(count("junk") >= WARNINGS_MAX as usize && count("junk") < 100, "{}", count("junk"));
        assert_eq!((count("news"), count("something else")), (1000, 1));
        assert_eq!(waiting.left_out.map(|(count, _)| count), Some(1000 - count("junk") as u64));
    }
}
