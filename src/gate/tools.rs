//! The tools that servers have listed: which definition of each counts, and which tools have become another.
//!
//! A part of `gate`: sessions show it every list before the client gets it, and every call asks it. The record has all of it,
//! shared by all gates; here is what a call needs to know, so that none waits for the record. What a server says can bring a
//! tool under suspicion and never clear it: a tool that was listed otherwise, anywhere, is held until a person accepts a
//! definition.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{Caller, Gate};
use crate::{
    definition::{ListedTool, TOOLS_PER_SERVER_MAX, ToolRecord, ToolState},
    digest::Digest,
    hold::NewHold,
    jsonrpc::Frame,
    mcp::{self, Annotations, Initialize, Mirrored, ToolDefinition},
    policy::{Decision, Effect, Mode},
    principal::Principal,
    store::{ROWS_READ_MAX, StoreError},
};

/// Tools of all servers that are remembered in this process.
const TOOLS_MAX: usize = 200_000;

/// Lists that may be on their way into the record at once. One more is recorded when it comes again.
const RECORDINGS_MAX: usize = 8;

/// How often it is recorded that a tool is still listed.
const SEEN_AGAIN_EVERY: Duration = Duration::from_secs(3600);

/// Rows of a difference that an approver is shown with a held call; `holdshort tools show` has all of them.
const ROWS_SHOWN_MAX: usize = 40;

/// Characters of one such row.
const ROW_CHARS_MAX: usize = 400;

/// The tools that a server has listed in one session.
#[derive(Clone, Debug, Default)]
pub struct ListedTools {
    tools: HashMap<Box<str>, (Digest, Annotations)>,
    /// Of the few that have any.
    mirrored: HashMap<Box<str>, Arc<[Mirrored]>>,
}

impl ListedTools {
    /// Remembers what a list says.
    pub fn learn(&mut self, listed: &[ToolDefinition<'_>]) {
        for tool in listed {
            if self.tools.len() < TOOLS_PER_SERVER_MAX || self.tools.contains_key(&*tool.name) {
                let digest = Digest::of(tool.text.as_bytes());
                self.tools.insert((&*tool.name).into(), (digest, tool.annotations));
                self.mirrored.remove(&*tool.name);
                if !tool.mirrored.is_empty() {
                    self.mirrored.insert((&*tool.name).into(), tool.mirrored.clone().into());
                }
            }
        }
    }

    /// The digest of a tool's definition, where it was listed.
    fn digest(&self, tool: &str) -> Option<Digest> {
        self.tools.get(tool).map(|(digest, _)| *digest)
    }

    /// The arguments of a tool that clients repeat in headers.
    pub(crate) fn mirrored(&self, tool: &str) -> &[Mirrored] {
        self.mirrored.get(tool).map_or(&[], |mirrored| mirrored)
    }

    /// What the server says of a tool.
    pub(super) fn annotations(&self, tool: &str) -> Annotations {
        self.tools.get(tool).map_or_else(Annotations::default, |(_, annotations)| *annotations)
    }
}

/// Why a call that a rule allows does not simply pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The tool is listed otherwise than it was accepted.
    Changed,
    /// The server lists more tools than are remembered, and this is none of them.
    TooMany,
    /// What was accepted could not be read from the record.
    Unread,
}

impl Doubt {
    /// Why the call is held, for its approver and its caller.
    fn reason(self) -> &'static str {
        match self {
            Self::Changed => "The server has changed the definition of this tool since it was accepted.",
            Self::TooMany => {
                "The server lists more tools than are remembered, so it cannot be told whether this one has changed."
            }
            Self::Unread => {
                "The definitions that were accepted could not be read, so it cannot be told whether this tool has changed."
            }
        }
    }
}

/// What is known of one tool of a server.
#[derive(Clone, Copy, Debug)]
struct Known {
    accepted: Digest,
    /// Whether nobody was ever asked about it, and there was nothing to ask.
    is_first: bool,
    changed: Option<(Digest, Timestamp)>,
    /// Whether the record does not know of the newest yet.
    is_unrecorded: bool,
    /// Of the state on record; 0 before there is one.
    revision: u64,
}

impl Known {
    /// Whether calls of it have to be looked at twice.
    fn is_suspect(&self) -> bool {
        self.changed.is_some() || !self.is_first
    }
}

/// What is known of one server.
#[derive(Debug, Default)]
struct Server {
    tools: HashMap<Box<str>, Known>,
    is_full: bool,
    /// When it was last recorded which tools it still lists.
    told_at: Option<Instant>,
}

/// What every call asks: nearly always, nothing is here.
#[derive(Debug, Default)]
struct Suspects {
    is_unread: bool,
    full: HashSet<Arc<str>>,
    tools: HashMap<Arc<str>, HashMap<Box<str>, Known>>,
}

/// What this process knows of all servers' tools.
pub(super) struct KnownTools {
    servers: Mutex<Servers>,
    suspects: ArcSwap<Suspects>,
    recordings: Arc<Semaphore>,
    /// How often it was asked for what the record says.
    asked: AtomicU64,
    last_read: tokio::sync::Mutex<LastRead>,
}

/// The last time that the record was read to its end, and what came of it.
struct LastRead {
    /// Of all that have asked, so many had done so before it began.
    covers: u64,
    result: Result<(), StoreError>,
}

#[derive(Default)]
struct Servers {
    by_name: HashMap<Arc<str>, Server>,
    len: usize,
    /// Up to where the record has been read.
    revision: u64,
    reading: Reading,
}

/// What came of reading the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    /// It was not tried: there is nothing in it, or nobody has asked for it.
    #[default]
    Never,
    /// It could not be read, or not yet, and what was accepted is not known.
    Failed,
    /// It was read to its end, at least once.
    Done,
}

impl Default for KnownTools {
    fn default() -> Self {
        Self {
            servers: Mutex::default(),
            suspects: ArcSwap::default(),
            recordings: Arc::new(Semaphore::new(RECORDINGS_MAX)),
            asked: AtomicU64::new(0),
            last_read: tokio::sync::Mutex::new(LastRead { covers: 0, result: Ok(()) }),
        }
    }
}

/// What a server has listed and the record has to know. Give it to [`Gate::record_tools`].
#[must_use = "other gates, and this one after a restart, would not know of it"]
pub struct SeenTools {
    server: Arc<str>,
    tools: Vec<ListedTool>,
    _turn: OwnedSemaphorePermit,
}

impl KnownTools {
    /// No code panics while it holds this lock; should one, the maps themselves are still whole.
    fn lock(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What speaks against a call of `tool`, which this session was shown as `listed`.
    pub(super) fn doubt(&self, server: &str, tool: &str, listed: &ListedTools) -> Option<Doubt> {
        let suspects = self.suspects.load();
        if suspects.is_unread {
            return Some(Doubt::Unread);
        }
        if let Some(known) = suspects.tools.get(server).and_then(|tools| tools.get(tool)) {
            let is_other = listed.digest(tool).is_some_and(|listed| listed != known.accepted);
            return (known.changed.is_some() || is_other).then_some(Doubt::Changed);
        }
        if suspects.full.contains(server) {
            let is_known =
                self.lock().by_name.get(server).is_some_and(|server| server.tools.contains_key(tool));
            return (!is_known).then_some(Doubt::TooMany);
        }
        None
    }

    /// The definition under which a call of `tool` is made: the one that the session was shown, or else the newest.
    pub(super) fn digest(&self, server: &str, tool: &str, listed: &ListedTools) -> Option<Digest> {
        listed.digest(tool).or_else(|| {
            let servers = self.lock();
            let known = servers.by_name.get(server)?.tools.get(tool)?;
            Some(known.changed.map_or(known.accepted, |(changed, _)| changed))
        })
    }

    /// Whether the tool of a held call has become another while the call waited: nobody was shown that.
    pub(super) fn has_changed_since(&self, hold: &NewHold) -> bool {
        let suspects = self.suspects.load();
        let known = suspects.tools.get(&*hold.server).and_then(|tools| tools.get(&*hold.tool));
        known.and_then(|known| known.changed).is_some_and(|(changed, at)| {
            at > hold.created_at && hold.tool_sha256.is_none_or(|held| held != changed)
        })
    }

    /// Notes what `server` lists, and gives what of it the record does not know.
    fn see(&self, server: &Arc<str>, listed: &[ToolDefinition<'_>], at: Timestamp) -> Option<SeenTools> {
        let servers = &mut *self.lock();
        let known = servers.by_name.entry(Arc::clone(server)).or_default();
        let is_due = known.told_at.is_none_or(|told| told.elapsed() >= SEEN_AGAIN_EVERY);
        let mut unrecorded = Vec::new();
        let mut is_news = false;
        for definition in listed {
            let sha256 = Digest::of(definition.text.as_bytes());
            let has_room = known.tools.len() < TOOLS_PER_SERVER_MAX && servers.len < TOOLS_MAX;
            let tool = match known.tools.get_mut(&*definition.name) {
                Some(tool) => tool,
                None if has_room => {
                    servers.len += 1;
                    known.tools.entry((&*definition.name).into()).or_insert(Known {
                        accepted: sha256,
                        is_first: true,
                        changed: None,
                        is_unrecorded: true,
                        revision: 0,
                    })
                }
                None => {
                    is_news |= !known.is_full;
                    known.is_full = true;
                    continue;
                }
            };
            if sha256 != tool.accepted && tool.changed.is_none_or(|(changed, _)| changed != sha256) {
                tool.changed = Some((sha256, at));
                tool.is_unrecorded = true;
                is_news = true;
            }
            if tool.is_unrecorded || is_due {
                unrecorded.push(ListedTool::from(definition));
            }
        }
        let turn = Arc::clone(&self.recordings).try_acquire_owned();
        if is_news {
            self.publish(servers);
        }
        // With all turns taken, what is unrecorded stays so, and is recorded when it is listed again.
        let turn = turn.ok().filter(|_| !unrecorded.is_empty())?;
        if let Some(known) = servers.by_name.get_mut(server) {
            known.told_at = Some(Instant::now());
        }
        Some(SeenTools { server: Arc::clone(server), tools: unrecorded, _turn: turn })
    }

    /// Takes over what is on record. `answers`: as the answer to what was seen here.
    fn merge(&self, states: Vec<ToolState>, answers: bool, full: Option<&Arc<str>>) {
        let servers = &mut *self.lock();
        let mut is_news = false;
        for state in states {
            if !answers {
                servers.revision = servers.revision.max(state.revision);
            }
            if !servers.by_name.contains_key(&*state.server) {
                servers.by_name.insert(Arc::from(&*state.server), Server::default());
            }
            let Some(server) = servers.by_name.get_mut(&*state.server) else { continue };
            let before = server.tools.get(&state.tool).copied();
            if before.is_none() {
                if servers.len >= TOOLS_MAX {
                    is_news |= !server.is_full;
                    server.is_full = true;
                    continue;
                }
                servers.len += 1;
            }
            if before.is_some_and(|before| before.revision > state.revision) {
                continue;
            }
            // What was seen here and is not on record yet is as true: an answer may be about an earlier list.
            let own = before.filter(|before| before.is_unrecorded).and_then(|before| before.changed);
            let own = own.filter(|(changed, _)| *changed != state.accepted && state.changed.is_none());
            let known = Known {
                accepted: state.accepted,
                is_first: state.is_first,
                changed: state.changed.or(own),
                is_unrecorded: own.is_some() || before.is_some_and(|before| before.is_unrecorded) && !answers,
                revision: state.revision,
            };
            is_news |= known.is_suspect() || before.is_some_and(|before| before.is_suspect());
            server.tools.insert(state.tool, known);
        }
        if let Some(server) = full.and_then(|full| servers.by_name.get_mut(full)) {
            is_news |= !server.is_full;
            server.is_full = true;
        }
        if is_news {
            self.publish(servers);
        }
    }

    /// Up to where the record has been read, and whether it ever was, to its end.
    fn read_so_far(&self) -> (u64, bool) {
        let servers = self.lock();
        (servers.revision, servers.reading == Reading::Done)
    }

    fn set_reading(&self, reading: Reading) {
        let servers = &mut *self.lock();
        if servers.reading != reading {
            servers.reading = reading;
            self.publish(servers);
        }
    }

    /// Puts into force what calls are to know.
    fn publish(&self, servers: &Servers) {
        let mut suspects = Suspects { is_unread: servers.reading == Reading::Failed, ..Suspects::default() };
        for (name, server) in &servers.by_name {
            let tools: HashMap<_, _> = server
                .tools
                .iter()
                .filter(|(_, known)| known.is_suspect())
                .map(|(tool, known)| (tool.clone(), *known))
                .collect();
            if !tools.is_empty() {
                suspects.tools.insert(Arc::clone(name), tools);
            }
            if server.is_full {
                suspects.full.insert(Arc::clone(name));
            }
        }
        self.suspects.store(Arc::new(suspects));
    }
}

/// Why a definition was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AcceptError {
    /// This principal may not decide.
    #[error("{0} may not accept a tool's definition")]
    NotAllowed(Principal),
    /// There is no such tool or definition, or the record cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Gate {
    /// Notes what `server` lists. To be asked before the client gets the list. Gives what the record does not know of it.
    pub fn see_tools(&self, server: &Arc<str>, listed: &[ToolDefinition<'_>]) -> Option<SeenTools> {
        self.tools.see(server, listed, Timestamp::now())
    }

    /// `answer`, a list of the tools of `server`, without those that are always denied, as one line. `None`: it passes as it
    /// came, as all do unless the policy says `hide_denied_tools`. What is left out is judged all the same.
    fn without_denied(&self, server: &str, answer: &Frame) -> Option<Bytes> {
        let policy = self.policy.load();
        if !policy.hides_denied_tools() {
            return None;
        }
        mcp::without_tools(answer, |tool| policy.always_denies(server, tool))
    }

    /// Reads what the server of `caller` says in `initialize`. Gives its answer as the client gets it, if that is another: where calls
    /// may be held, they can be asked for as tasks.
    pub fn learn_server(&self, caller: &mut Caller, answer: &Frame) -> Option<Bytes> {
        let result = answer.result().unwrap_or_default();
        let initialize = Initialize::from_result(result);
        caller.revision = initialize.map(|initialize| Arc::from(&*initialize.protocol_version));
        caller.server_has_tasks = mcp::server_has_tasks(result);
        if self.policy.load().may_hold() { mcp::offering_tasks_2025(answer) } else { None }
    }

    /// `answer`, a list of the tools of `caller`'s server, as the client gets it. `None`: it passes as it came.
    pub fn list_for(&self, caller: &Caller, answer: &Frame) -> Option<Bytes> {
        let kept = self.without_denied(&caller.server, answer);
        let takes_tasks =
            !caller.server_has_tasks && caller.revision.as_deref() == Some(mcp::VERSION_WITH_TASKS);
        if !takes_tasks {
            return kept;
        }
        let policy = self.policy.load();
        let may_wait = |tool: &str| policy.never_allows(&caller.server, tool);
        match kept {
            None => mcp::with_task_support(answer, may_wait),
            Some(kept) => {
                let listed = Frame::from_server(kept.clone()).ok();
                listed.and_then(|listed| mcp::with_task_support(&listed, may_wait)).or(Some(kept))
            }
        }
    }

    /// Puts on record what a server has listed. The gate goes by it from the moment it was seen, whatever becomes of this.
    pub async fn record_tools(&self, seen: SeenTools) {
        let SeenTools { server, tools, _turn } = seen;
        match self.store.see_tools(Arc::clone(&server), tools, Arc::clone(&self.instance)).await {
            Ok((states, is_full)) => self.tools.merge(states, true, is_full.then_some(&server)),
            Err(error) => {
                tracing::error!(server = &*server, %error, "what a server lists could not be recorded");
            }
        }
    }

    /// Reads what other gates and operators have recorded of tools since this was asked last. Where that fails the first time,
    /// no rule lets a call of a tool pass until it succeeds; later, what is known stays. Of all who ask while it is being read, one
    /// reads anew for the others.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub async fn refresh_tools(&self) -> Result<(), StoreError> {
        let asked = self.tools.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last = self.tools.last_read.lock().await;
        if last.covers < asked {
            // Whatever was recorded before one of these has asked is found by what is read from here on.
            let covers = self.tools.asked.load(Ordering::SeqCst);
            *last = LastRead { covers, result: self.read_tools().await };
        }
        last.result.clone()
    }

    /// [`Gate::refresh_tools`] has not succeeded yet, and is not waited for: no rule lets a call of a tool pass until it has.
    pub fn begin_without_tools(&self) {
        self.tools.set_reading(Reading::Failed);
    }

    async fn read_tools(&self) -> Result<(), StoreError> {
        loop {
            let (revision, was_read) = self.tools.read_so_far();
            match self.store.tools_since(revision).await {
                Ok(states) => {
                    let is_last = states.len() < ROWS_READ_MAX;
                    self.tools.merge(states, false, None);
                    if is_last {
                        self.tools.set_reading(Reading::Done);
                        return Ok(());
                    }
                }
                Err(error) => {
                    if !was_read {
                        self.tools.set_reading(Reading::Failed);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// From now on the definition `sha256` of a tool counts, because `who`, a person, has read it. Calls that wait go on
    /// waiting.
    ///
    /// # Errors
    ///
    /// See [`AcceptError`]; after any of them nothing has changed.
    pub async fn accept_tool(
        &self,
        server: &str,
        tool: &str,
        sha256: Digest,
        who: &Principal,
    ) -> Result<ToolState, AcceptError> {
        if !matches!(who, Principal::User { .. }) {
            return Err(AcceptError::NotAllowed(who.clone()));
        }
        let state =
            self.store.accept_tool(server, tool, sha256, Arc::clone(&self.instance), who.to_string()).await?;
        self.tools.merge(vec![state.clone()], false, None);
        Ok(state)
    }

    /// What an approver of `hold` should know of its tool, which has changed: in what.
    pub(super) async fn change_of_tool(&self, hold: &NewHold) -> Vec<String> {
        // All turns are free again when whatever was seen before this call came is on record, or has failed.
        let all = u32::try_from(RECORDINGS_MAX).unwrap_or(u32::MAX);
        drop(self.tools.recordings.acquire_many(all).await);
        match self.store.tool(&hold.server, &hold.tool).await {
            Ok(Some(record)) => notes(&record, hold.tool_sha256),
            _ => vec!["in what the tool has changed is not on record".to_owned()],
        }
    }
}

/// What an approver should know of a tool whose definition is `listed` now.
fn notes(record: &ToolRecord, listed: Option<Digest>) -> Vec<String> {
    let state = &record.state;
    let listed = listed.filter(|listed| *listed != state.accepted);
    let Some(listed) = listed.or(state.changed.map(|(changed, _)| changed)) else {
        return vec!["the tool has been listed otherwise, and nothing of that is on record".to_owned()];
    };
    let since = match &record.accepted_by {
        Some(who) => format!("{who} accepted on {}", record.accepted_at),
        None => format!("was first listed on {}", record.accepted_at),
    };
    let mut notes = vec![format!(
        "the tool is no longer the one that {since}; to approve lets this call run and accepts nothing \
         (`holdshort tools` does)"
    )];
    let Some(rows) = record.difference(listed) else {
        notes.push("in what it has changed cannot be shown: a definition was too long to be kept".to_owned());
        return notes;
    };
    for row in rows.iter().take(ROWS_SHOWN_MAX) {
        let row = row.to_string();
        notes.push(match row.char_indices().nth(ROW_CHARS_MAX) {
            Some((end, _)) => format!("{}… (cut; `holdshort tools show` has all of it)", &row[..end]),
            None => row,
        });
    }
    if rows.len() > ROWS_SHOWN_MAX {
        let more = rows.len() - ROWS_SHOWN_MAX;
        notes.push(format!("and in {more} more places: `holdshort tools show` has all of them"));
    }
    notes
}

/// What becomes of a decision about a tool in doubt: a call that would pass waits for a person, and one that waits anyway is
/// decided by people alone. What is denied stays so, and where the mode says only to watch, nothing is held.
pub(super) fn in_doubt(doubt: Doubt, decision: Decision) -> Decision {
    match (decision.mode, decision.effect, decision.would_have) {
        (Mode::Disabled, ..) | (_, Effect::Deny, _) | (Mode::Audit, _, Some(_)) => decision,
        (Mode::Audit, ..) => {
            let terms = Some(Arc::default());
            Decision { would_have: Some(Effect::Hold), reason: doubt.reason().into(), terms, ..decision }
        }
        (_, Effect::Allow, _) => {
            let terms = Some(Arc::default());
            Decision { effect: Effect::Hold, reason: doubt.reason().into(), terms, ..decision }
        }
        (_, Effect::Hold, _) => {
            let mut terms = decision.terms.as_deref().cloned().unwrap_or_default();
            // What was remembered was said of another tool, and what is said now is not to outlast the doubt.
            terms.remember = None;
            let mut notes = decision.notes;
            notes.push(doubt.reason().to_owned());
            Decision { terms: Some(Arc::new(terms)), notes, ..decision }
        }
    }
}

#[cfg(test)]
mod tests;
