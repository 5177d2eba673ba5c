//! The clients of one server: their sessions, what they said of themselves, and which of their calls wait.
//!
//! Used by `post`, `held` and `stream`. A session id is the server's; it is bound to whoever used it first, and says nothing of who
//! somebody is (MCP 2025-11-25, "Session Management"). Revisions without sessions share one entry for each principal: its clients may be
//! several, so what waits of one is not asked about for another. Where there is no room, what is made up goes before what servers know.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{
    sync::mpsc::{Sender, WeakSender},
    time::Instant,
};

use super::watch::{Interest, Witness};
use crate::{
    gate::{AskedAbout, Caller, Gate},
    hold::{Absence, HoldId, Withdrawal},
    jsonrpc::{Frame, RequestId},
    mcp::{self, ToolDefinition},
    principal::Principal,
    transport::tools,
    waiting::Wait,
};

/// Sessions of one server that are known at the same time.
const SESSIONS_MAX: usize = 100_000;

/// How long a session may be unused before it makes room for another one.
const UNUSED_MAX: Duration = Duration::from_secs(3600);

/// Principals of one server that are known without a session.
const PRINCIPALS_MAX: usize = 10_000;

/// Requests of a server that one client may owe an answer to.
const ASKED_MAX: usize = 4096;

/// Approved calls of one client whose answers may be awaited on another stream.
const AWAITED_MAX: usize = 1000;

/// Calls of one client that it has left and may still take back. Of more, the oldest are forgotten: they stay to be decided.
const LEFT_MAX: usize = 64;

/// A session belongs to another principal, or there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSession {
    /// It is somebody else's.
    Foreign,
    /// As many are open as may.
    TooMany,
}

/// All clients of one server.
pub(super) struct Sessions {
    server: Arc<str>,
    /// How long clients are kept waiting, where an operator has set it.
    wait: Mutex<Option<Wait>>,
    began: Instant,
    by_id: Mutex<HashMap<Box<str>, Arc<Session>>>,
    without: Mutex<HashMap<Arc<Principal>, Arc<Session>>>,
}

/// One client of one server.
pub(super) struct Session {
    principal: Arc<Principal>,
    /// What the server calls it, if it does.
    id: OnceLock<Box<str>>,
    caller: ArcSwap<Caller>,
    waiting: Mutex<Waiting>,
    /// Requests of the server that the client has not answered.
    asked: Mutex<HashSet<RequestId>>,
    /// Questions of ours to the client's user.
    questions: Mutex<HashMap<RequestId, AskedAbout>>,
    /// Approved calls whose answers the client comes back for.
    awaited: Mutex<HashMap<RequestId, Witness>>,
    /// What is to be read of answers that come on a stream of the session's own.
    interests: Mutex<HashMap<RequestId, Interest>>,
    /// Where its client waits for the result of a task.
    beside: Mutex<Option<WeakSender<Bytes>>>,
    /// Whether the server has taken anything in it: before that the id is only a client's word.
    is_confirmed: AtomicBool,
    /// Seconds since the process began.
    used: AtomicU64,
}

/// The held calls of a client.
#[derive(Default)]
struct Waiting {
    by_id: HashMap<RequestId, Vec<Arc<HeldHere>>>,
    /// The progress tokens of those that have one, and how many share it.
    tokens: HashMap<Box<str>, usize>,
    /// Those that the client no longer waits for, though it has not taken them back.
    left: VecDeque<Left>,
}

/// A held call whose client has gone: the call in its session, and the hold as people know it.
struct Left {
    here: Arc<HeldHere>,
    /// `None` while its absence is being recorded.
    hold: Option<HoldId>,
}

/// What a cancellation has found.
#[derive(Debug, Default)]
pub(super) struct Cancelled {
    /// Whether any call has its id: then the server has never seen it.
    pub(super) is_held: bool,
    /// Holds that nobody waits for, to be taken back.
    pub(super) left: Vec<HoldId>,
}

/// A held call, as its session knows it.
#[derive(Debug)]
pub(super) struct HeldHere {
    id: RequestId,
    hold: HoldId,
    token: Option<Box<str>>,
    /// Whether the client has taken it back while an approval was being recorded: then it is not sent.
    cancelled: AtomicBool,
}

impl HeldHere {
    /// Whether the client has taken it back.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these; should one, the maps themselves are whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    pub(super) fn new(server: Arc<str>, wait: Option<Wait>) -> Self {
        let (by_id, without) = (Mutex::default(), Mutex::default());
        Self { server, wait: Mutex::new(wait), began: Instant::now(), by_id, without }
    }

    /// From now on clients are kept waiting so long.
    pub(super) fn wait_so_long(&self, wait: Option<Wait>) {
        *lock(&self.wait) = wait;
        let mut all: Vec<_> = lock(&self.by_id).values().cloned().collect();
        all.extend(lock(&self.without).values().cloned());
        all.iter().for_each(|session| session.change(|caller| caller.wait = wait));
    }

    /// The client that sends `id` as its session, or no session.
    ///
    /// # Errors
    ///
    /// When the session is another principal's, or there are too many.
    pub(super) fn find(
        &self,
        id: Option<&str>,
        principal: &Arc<Principal>,
    ) -> Result<Arc<Session>, NoSession> {
        let Some(id) = id else { return self.without_id(principal) };
        let mut by_id = lock(&self.by_id);
        if let Some(session) = by_id.get(id) {
            if session.principal != *principal {
                return Err(NoSession::Foreign);
            }
            session.used.store(self.now(), Ordering::Relaxed);
            return Ok(Arc::clone(session));
        }
        // One of before this process began, most likely. Whether it still is one is the server's to say.
        let session = self.fresh(principal);
        self.insert(&mut by_id, id, &session)?;
        Ok(session)
    }

    fn without_id(&self, principal: &Arc<Principal>) -> Result<Arc<Session>, NoSession> {
        let mut without = lock(&self.without);
        if let Some(session) = without.get(principal) {
            return Ok(Arc::clone(session));
        }
        if without.len() >= PRINCIPALS_MAX {
            without.retain(|_, session| !session.is_idle());
        }
        if without.len() >= PRINCIPALS_MAX {
            return Err(NoSession::TooMany);
        }
        let caller = Caller::without_session(principal, Arc::clone(&self.server));
        let session = self.of(principal, caller);
        without.insert(Arc::clone(principal), Arc::clone(&session));
        Ok(session)
    }

    fn fresh(&self, principal: &Arc<Principal>) -> Arc<Session> {
        self.of(principal, Caller::new(principal, Arc::clone(&self.server)))
    }

    fn of(&self, principal: &Arc<Principal>, mut caller: Caller) -> Arc<Session> {
        caller.wait = *lock(&self.wait);
        Arc::new(Session {
            principal: Arc::clone(principal),
            id: OnceLock::new(),
            caller: ArcSwap::from_pointee(caller),
            waiting: Mutex::default(),
            asked: Mutex::default(),
            questions: Mutex::default(),
            awaited: Mutex::default(),
            interests: Mutex::default(),
            beside: Mutex::default(),
            is_confirmed: AtomicBool::new(false),
            used: AtomicU64::new(self.now()),
        })
    }

    fn insert(
        &self,
        by_id: &mut HashMap<Box<str>, Arc<Session>>,
        id: &str,
        session: &Arc<Session>,
    ) -> Result<(), NoSession> {
        if by_id.len() >= SESSIONS_MAX {
            self.make_room(by_id);
        }
        if by_id.len() >= SESSIONS_MAX {
            return Err(NoSession::TooMany);
        }
        let _ = session.id.set(id.into());
        by_id.insert(id.into(), Arc::clone(session));
        Ok(())
    }

    /// Forgets sessions that nobody uses just now: those that the server has never taken and those that have been unused for long; if
    /// there are none, half of those of whoever has the most.
    fn make_room(&self, by_id: &mut HashMap<Box<str>, Arc<Session>>) {
        let now = self.now();
        by_id.retain(|_, session| {
            let is_fresh = now - session.used() < UNUSED_MAX.as_secs();
            !session.is_idle() || (session.is_confirmed.load(Ordering::Relaxed) && is_fresh)
        });
        if by_id.len() < SESSIONS_MAX {
            return;
        }
        let mut idle: HashMap<&Arc<Principal>, Vec<u64>> = HashMap::new();
        for session in by_id.values().filter(|session| session.is_idle()) {
            idle.entry(&session.principal).or_default().push(session.used());
        }
        let Some((principal, mut used)) = idle.into_iter().max_by_key(|(_, used)| used.len()) else { return };
        let (principal, middle) = (Arc::clone(principal), (used.len() - 1) / 2);
        let (_, last, _) = used.select_nth_unstable(middle);
        let last = *last;
        by_id.retain(|_, session| {
            !session.is_idle() || session.principal != principal || session.used() > last
        });
    }

    /// A client that has just said who it is; it becomes a session when the server gives it an id.
    pub(super) fn begin(
        &self,
        principal: &Arc<Principal>,
        client: Option<(Arc<str>, Arc<str>)>,
    ) -> Arc<Session> {
        let session = self.fresh(principal);
        if let Some((name, agent)) = client {
            session.is_client(&name, &agent);
        }
        session
    }

    /// One client of `principal`, called `id` by us and not by the server: nobody finds it by that.
    pub(super) fn begin_named(&self, principal: &Arc<Principal>, id: &str) -> Arc<Session> {
        let session = self.fresh(principal);
        let _ = session.id.set(id.into());
        session
    }

    /// The server calls `session` by `id` from now on.
    pub(super) fn name(&self, id: &str, session: &Arc<Session>) -> Result<(), NoSession> {
        session.confirm();
        self.insert(&mut lock(&self.by_id), id, session)
    }

    /// The session is over, if it is one.
    pub(super) fn forget(&self, session: &Session) {
        if let Some(id) = session.id.get() {
            lock(&self.by_id).remove(id);
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_secs()
    }
}

impl Session {
    /// The client as the gate wants to know it.
    pub(super) fn caller(&self) -> Arc<Caller> {
        self.caller.load_full()
    }

    fn change(&self, change: impl Fn(&mut Caller)) {
        self.caller.rcu(|caller| {
            let mut caller = Caller::clone(caller);
            change(&mut caller);
            caller
        });
    }

    /// The server has taken something in this session.
    pub(super) fn confirm(&self) {
        self.is_confirmed.store(true, Ordering::Relaxed);
    }

    /// Whether nobody has to do with it just now, and no answer is awaited in it. Only asked while nobody else can find it.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && lock(&self.awaited).is_empty()
    }

    /// When it was last used, in seconds since the process began.
    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// On `stream` its client waits for the result of a task: what servers say beside the answers of tasks can be said there.
    pub(super) fn listens_beside(&self, stream: WeakSender<Bytes>) {
        if self.is_one_client() {
            *lock(&self.beside) = Some(stream);
        }
    }

    /// The stream on which that is said, if its client has one.
    pub(super) fn beside(&self) -> Option<Sender<Bytes>> {
        lock(&self.beside).as_ref()?.upgrade()
    }

    /// Whether only one client can be behind it: then an id is used once at a time.
    pub(super) fn is_one_client(&self) -> bool {
        self.id.get().is_some()
    }

    /// The client says that it is `name`, or with its version `agent`.
    pub(super) fn is_client(&self, name: &str, agent: &str) {
        let (name, agent): (Arc<str>, Arc<str>) = (name.into(), agent.into());
        self.change(|caller| {
            caller.client = Arc::clone(&name);
            caller.agent = Arc::clone(&agent);
        });
    }

    /// The answer to `id` is to be read, wherever it comes. One too many is not.
    pub(super) fn is_interested(&self, id: RequestId, interest: Interest) {
        let mut interests = lock(&self.interests);
        if interests.len() < AWAITED_MAX {
            interests.insert(id, interest);
        }
    }

    /// What is to be read of the answer to `id`.
    pub(super) fn take_interest(&self, id: &RequestId) -> Interest {
        lock(&self.interests).remove(id).unwrap_or(Interest::None)
    }

    /// Its client is gone: what waits can still be decided.
    pub(super) fn detach_all(&self, gate: &Gate, why: Absence) {
        let all: Vec<HoldId> = lock(&self.waiting).by_id.values().flatten().map(|here| here.hold).collect();
        for hold in all {
            gate.detach(hold, why);
        }
    }

    /// Reads the server's answer to `initialize`. Gives what the client gets in its place, if that is another.
    pub(super) fn learn_server(&self, gate: &Gate, answer: &Frame) -> Option<Bytes> {
        let mut learned = Caller::clone(&self.caller());
        let told = gate.learn_server(&mut learned, answer);
        self.change(|caller| {
            caller.revision.clone_from(&learned.revision);
            caller.server_has_tasks = learned.server_has_tasks;
        });
        told
    }

    /// The server has listed tools.
    pub(super) fn learn_tools(&self, listed: &[ToolDefinition<'_>]) {
        self.change(|caller| tools::learn(caller, listed));
    }

    /// The server asks the client something. `false` if the client owes it too many answers.
    pub(super) fn ask(&self, id: &RequestId) -> bool {
        let mut asked = lock(&self.asked);
        if asked.len() >= ASKED_MAX && !asked.contains(id) {
            return false;
        }
        asked.insert(id.clone());
        true
    }

    /// Whether the server has asked for an answer with `id`, which it now gets.
    pub(super) fn take_asked(&self, id: &RequestId) -> bool {
        lock(&self.asked).remove(id)
    }

    /// We ask the client's user, as `id`. `false` if the client owes us too many answers.
    pub(super) fn ask_user(&self, id: RequestId, about: AskedAbout) -> bool {
        let mut questions = lock(&self.questions);
        let has_room = questions.len() < AWAITED_MAX;
        if has_room {
            questions.insert(id, about);
        }
        has_room
    }

    /// What our question `id` was about, which has its answer now or needs none.
    pub(super) fn take_question(&self, id: &RequestId) -> Option<AskedAbout> {
        lock(&self.questions).remove(id)
    }

    /// What the client can do, as it says in `initialize`.
    pub(super) fn is_able(&self, capabilities: &str) {
        let can_ask = mcp::declares_elicitation(capabilities);
        self.change(|caller| caller.can_ask = can_ask);
    }

    /// The answer to the approved call `id` may come on another stream. Gives one too many back.
    pub(super) fn await_answer(&self, id: RequestId, witness: Witness) -> Option<Witness> {
        let mut awaited = lock(&self.awaited);
        if awaited.len() >= AWAITED_MAX {
            return Some(witness);
        }
        let replaced = awaited.insert(id, witness);
        drop(awaited);
        // Its request was abandoned: the id is used again.
        drop(replaced);
        None
    }

    /// The approved call `id`, whose answer has come.
    pub(super) fn take_awaited(&self, id: &RequestId) -> Option<Witness> {
        lock(&self.awaited).remove(id)
    }

    /// The same, if it is the one that was approved as `hold`: its id may have been used again since.
    pub(super) fn take_awaited_as(&self, id: &RequestId, hold: HoldId) -> Option<Witness> {
        let mut awaited = lock(&self.awaited);
        if awaited.get(id)?.is_of(hold) { awaited.remove(id) } else { None }
    }

    /// Whether a call of its one client with `id` waits.
    pub(super) fn is_held(&self, id: &RequestId) -> bool {
        self.is_one_client() && lock(&self.waiting).by_id.contains_key(id)
    }

    /// Whether any call waits.
    pub(super) fn has_held(&self) -> bool {
        !lock(&self.waiting).by_id.is_empty()
    }

    /// Whether a call of its one client with the progress token `token` (raw JSON) waits.
    pub(super) fn is_held_token(&self, token: &str) -> bool {
        self.is_one_client() && lock(&self.waiting).tokens.contains_key(token)
    }

    /// A call waits, until the returned value is given to [`Session::no_longer_held`]. `token` is raw JSON. None: the one client of this
    /// session has another call waiting with this id or progress token.
    pub(super) fn hold(&self, id: RequestId, hold: HoldId, token: Option<&str>) -> Option<Arc<HeldHere>> {
        let here = HeldHere { id, hold, token: token.map(Into::into), cancelled: AtomicBool::new(false) };
        let here = Arc::new(here);
        let mut waiting = lock(&self.waiting);
        let is_repeated = waiting.by_id.contains_key(&here.id)
            || token.is_some_and(|token| waiting.tokens.contains_key(token));
        if self.is_one_client() && is_repeated {
            return None;
        }
        if let Some(token) = &here.token {
            *waiting.tokens.entry(token.clone()).or_default() += 1;
        }
        waiting.by_id.entry(here.id.clone()).or_default().push(Arc::clone(&here));
        Some(here)
    }

    /// It no longer waits.
    pub(super) fn no_longer_held(&self, here: &Arc<HeldHere>) {
        let mut waiting = lock(&self.waiting);
        if let Some(same_id) = waiting.by_id.get_mut(&here.id) {
            same_id.retain(|other| !Arc::ptr_eq(other, here));
            if same_id.is_empty() {
                waiting.by_id.remove(&here.id);
            }
        }
        if let Some(token) = &here.token
            && let Some(count) = waiting.tokens.get_mut(token)
        {
            *count -= 1;
            if *count == 0 {
                waiting.tokens.remove(token);
            }
        }
    }

    /// Its client is gone, and may take the call back all the same while the session lasts. Only one client can mean it.
    pub(super) fn leaves(&self, here: &Arc<HeldHere>) {
        if self.is_one_client() {
            let mut waiting = lock(&self.waiting);
            if waiting.left.len() == LEFT_MAX {
                waiting.left.pop_front();
            }
            waiting.left.push_back(Left { here: Arc::clone(here), hold: None });
        }
        // In this order: a cancellation finds it twice rather than not at all.
        self.no_longer_held(here);
    }

    /// That its client is gone is on record, as an absence from `hold`. Gives whether it was taken back meanwhile.
    pub(super) fn has_left(&self, here: &Arc<HeldHere>, hold: HoldId) -> bool {
        let mut waiting = lock(&self.waiting);
        if let Some(left) = waiting.left.iter_mut().find(|left| Arc::ptr_eq(&left.here, here)) {
            left.hold = Some(hold);
        }
        here.is_cancelled()
    }

    /// The client takes the call `id` back. Where there may be several, nobody knows whose call that is.
    pub(super) fn cancel(&self, gate: &Gate, id: &RequestId) -> Cancelled {
        if !self.is_one_client() {
            return Cancelled::default();
        }
        let mut waiting = lock(&self.waiting);
        let found = waiting.by_id.get(id).map(|held| mark(held.iter())).unwrap_or_default();
        let mut cancelled = Cancelled { is_held: !found.is_empty(), left: Vec::new() };
        waiting.left.retain(|left| {
            let is_it = left.here.id == *id;
            if is_it {
                cancelled.is_held = true;
                left.here.cancelled.store(true, Ordering::Release);
                cancelled.left.extend(left.hold);
            }
            !is_it
        });
        drop(waiting);
        for hold in &found {
            gate.withdraw(*hold, Withdrawal::Cancelled);
        }
        cancelled
    }

    /// The session ends: nothing of it may run any more.
    pub(super) fn withdraw_all(&self, gate: &Gate) {
        let all = mark(lock(&self.waiting).by_id.values().flatten());
        for hold in all {
            gate.withdraw(hold, Withdrawal::ClientGone);
        }
    }
}

/// Marks calls as taken back, while the map is locked: an approval that is being recorded just now is then not sent.
fn mark<'a>(held: impl Iterator<Item = &'a Arc<HeldHere>>) -> Vec<HoldId> {
    held.map(|here| {
        here.cancelled.store(true, Ordering::Release);
        here.hold
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> Arc<Principal> {
        Arc::new(Principal::Agent { name: name.to_owned() })
    }

    fn waits(session: &Session, id: &str, token: Option<&str>) -> Option<Arc<HeldHere>> {
        session.hold(RequestId::from_token(id).unwrap(), HoldId::random().unwrap(), token)
    }

    #[test]
    fn of_two_calls_of_one_client_with_the_same_id_or_token_one_waits() {
        let sessions = Sessions::new("billing".into(), None);
        let principal = Arc::new(Principal::client());
        let one = sessions.begin_named(&principal, "one client");
        let first = waits(&one, "1", Some("\"a\"")).unwrap();
        assert!(waits(&one, "1", None).is_none(), "the id is taken");
        assert!(waits(&one, "2", Some("\"a\"")).is_none(), "the token is taken");
        assert!(waits(&one, "\"1\"", Some("\"b\"")).is_some(), "that is another id");
        one.no_longer_held(&first);
        assert!(waits(&one, "1", Some("\"a\"")).is_some(), "both are free again");

        let anybody = sessions.begin(&principal, None);
        assert!(waits(&anybody, "1", None).is_some() && waits(&anybody, "1", None).is_some());
    }

    #[test]
    fn ids_that_a_client_makes_up_keep_nobody_from_a_session() {
        let sessions = Sessions::new("billing".into(), None);
        let (alice, mallory) = (agent("alice"), agent("mallory"));
        sessions.find(Some("alice's"), &alice).unwrap().confirm();
        let held = sessions.find(Some("where a call waits"), &alice).unwrap();
        for number in 0..SESSIONS_MAX {
            assert!(sessions.find(Some(&format!("made up {number}")), &mallory).is_ok(), "{number}");
        }
        let new = sessions.begin(&alice, None);
        assert_eq!(sessions.name("alice's second", &new), Ok(()));
        for own in ["alice's", "alice's second", "where a call waits"] {
            assert_eq!(sessions.find(Some(own), &mallory).err(), Some(NoSession::Foreign), "{own}");
        }
        assert!(Arc::ptr_eq(&held, &sessions.find(Some("where a call waits"), &alice).unwrap()));
    }

    #[test]
    fn whoever_has_the_most_sessions_makes_room() {
        let sessions = Sessions::new("billing".into(), None);
        let (alice, mallory) = (agent("alice"), agent("mallory"));
        sessions.find(Some("alice's"), &alice).unwrap().confirm();
        for number in 0..=SESSIONS_MAX {
            sessions.find(Some(&format!("begun {number}")), &mallory).unwrap().confirm();
        }
        assert!(sessions.find(Some("alice's second"), &alice).is_ok());
        assert_eq!(sessions.find(Some("alice's"), &mallory).err(), Some(NoSession::Foreign));
    }

    #[test]
    fn agents_without_sessions_that_are_gone_make_room() {
        let sessions = Sessions::new("billing".into(), None);
        let alice = agent("alice");
        let here = sessions.find(None, &alice).unwrap();
        for number in 0..=PRINCIPALS_MAX {
            assert!(sessions.find(None, &agent(&number.to_string())).is_ok(), "{number}");
        }
        assert!(Arc::ptr_eq(&here, &sessions.find(None, &alice).unwrap()), "whoever is here stays known");
    }
}
