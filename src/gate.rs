//! The policy enforcement point: what may pass, what is refused, what waits, and how waiting ends.
//!
//! The session shows it every frame of the client ([`Gate::screen`]) and lets it keep the calls that are held
//! ([`Gate::hold`]); every way to a verdict ends in [`Gate::resolve`]. It is the only maker of [`Permitted`]. It orders the
//! writes to the store, and never speaks to a peer itself.
//!
//! How a hold ends, in one place: whoever removes it from the table owns the end. A verdict is handed to the task in
//! [`Gate::hold`], which alone writes the end down and only then lets it take effect.

mod approvals;
mod bursts;
mod continuation;
mod fleet;
mod keep;
mod measure;
mod observe;
mod owed;
mod permit;
mod proof;
mod quorum;
mod refusal;
mod reminders;
mod rounds;
mod spans;
mod tasks;
mod tools;
mod verdict;

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::{
    sync::{Notify, broadcast, oneshot},
    time::Instant,
};

pub use self::{
    approvals::{EDIT_BYTES_MAX, Edited, never_edited},
    measure::Waiting,
    observe::AUDITED_ARGUMENT_BYTES_MAX,
    owed::Unrecorded,
    permit::Permitted,
    refusal::{Refusal, Why},
    rounds::{AskedAbout, ClientQuestion, ROUNDS_MAX},
    spans::{Arrival, CallSpan},
    tasks::{Begun, Followed, Polled, TASK_ANSWER_BYTES_MAX, task_answer, unusable_answer},
    tools::{AcceptError, ListedTools, SeenTools},
    verdict::ResolveError,
};
use crate::{
    audit::{AuditEvent, Occasion},
    digest::Digest,
    faults::fail_point,
    gate::{refusal::Refused, tools::Doubt},
    hold::{Assurance, Cause, HoldId, HoldTerms, NewHold, Place, State, Vote, Withdrawal},
    hold_table::{HoldTable, Suspended},
    jsonrpc::{ErrorCode, Frame, FrameBytes, Kind, RequestId},
    mcp::{self, Era, ToolCall, call_sha256, method},
    policy::{Call, Decision, Effect, Mode, Policy},
    principal::Principal,
    sanitize,
    store::{Store, StoreError},
    trace::Tracer,
    waiting::{Plan, Wait},
};

/// News that a slow watcher of [`Gate::watch`] may miss before it has to list again.
const NEWS_KEPT_MAX: usize = 1024;

/// What bounds a gate.
#[derive(Clone, Copy, Debug)]
pub struct GateLimits {
    /// Calls that may wait in this process.
    pub holds_max: usize,
    /// Bytes that the frames of the waiting calls may take together.
    pub held_frame_bytes_max: usize,
    /// How long an approval that no caller was there for can be redeemed, and a rejection is remembered, in seconds.
    pub grant_seconds: u32,
}

impl Default for GateLimits {
    /// 100,000 calls of 256 MiB together: some 2.5 KiB each, far above the usual call. An hour for whoever comes back.
    fn default() -> Self {
        Self { holds_max: 100_000, held_frame_bytes_max: 256 << 20, grant_seconds: 3600 }
    }
}

/// The client at the other end of a session and the server that it speaks to, as far as the gate needs to know them.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name of the server, in rules, lists and the record.
    pub server: Arc<str>,
    /// Who asks, authenticated.
    pub principal: Arc<str>,
    /// What the client says of itself, name only; for conditions (`client`). Untrusted.
    pub client: Arc<str>,
    /// What the client says of itself, with its version; for people. Untrusted.
    pub agent: Arc<str>,
    /// The revision that `initialize` has negotiated. None in the era where each request declares its own.
    pub revision: Option<Arc<str>>,
    /// Names in more than one script that the server has listed. Any other such name is refused: it may be a look-alike.
    pub mixed_script_tools: HashSet<Box<str>>,
    /// The tools that the server has listed.
    pub tools: ListedTools,
    /// How long this client is to be kept waiting, where an operator has set it.
    pub wait: Option<Wait>,
    /// Whether it is reached by HTTP, although its session is one of lines.
    pub is_http: bool,
    /// Whether the client can ask its user by a form, as `initialize` says.
    pub can_ask: bool,
    /// Whether the server has tasks of 2025-11-25 itself, as `initialize` says.
    pub server_has_tasks: bool,
    /// Tells the sessions of this process apart: the same call made twice in one session is one that was made again. None
    /// where there is no session: then each request may be another client's.
    session: Option<u64>,
}

/// The number of the last session.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

impl Caller {
    /// All clients of `server` that have no session and show that they are `principal`.
    pub fn without_session(principal: &Principal, server: Arc<str>) -> Self {
        Self { session: None, ..Self::new(principal, server) }
    }

    /// A client of `server` that has not said anything yet.
    pub fn new(principal: &Principal, server: Arc<str>) -> Self {
        Self {
            server,
            principal: principal.to_string().into(),
            client: Arc::from(""),
            agent: Arc::from(""),
            revision: None,
            mixed_script_tools: HashSet::new(),
            tools: ListedTools::default(),
            wait: None,
            is_http: false,
            can_ask: false,
            server_has_tasks: false,
            session: Some(next_session()),
        }
    }
}

/// A number that no other session of this process has.
fn next_session() -> u64 {
    SESSIONS.fetch_add(1, Ordering::Relaxed)
}

/// What the policy says of one call, with what the rest of its way needs.
struct Judged {
    tool: Arc<str>,
    agent: Arc<str>,
    era: Era,
    progress_token: Option<Box<str>>,
    is_task: bool,
    /// Whether the client can ask its user.
    can_ask: bool,
    /// With what the call comes back.
    back: Option<Box<rounds::Back>>,
    /// How the call waits, if it is held.
    plan: Plan,
    /// What speaks against the tool, whatever the rules say.
    doubt: Option<Doubt>,
    decision: Decision,
    policy_sha256: Digest,
}

/// What the gate says of a frame at once.
#[derive(Debug)]
pub enum Screened {
    /// It may go upstream.
    Pass(Permitted),
    /// It does not.
    Refuse(Refusal),
    /// It waits for people.
    Hold(Box<HeldCall>),
}

/// A suspended call: nobody is asked before [`Gate::hold`] keeps it, and it can be withdrawn from the start.
pub struct HeldCall {
    bytes: FrameBytes,
    hold: Arc<NewHold>,
    refused: Refused,
    progress_token: Option<Box<str>>,
    is_task: bool,
    rounds: rounds::Rounds,
    /// Hears of the question to the client's user, if somebody listens.
    ask: Option<oneshot::Sender<ClientQuestion>>,
    back: Option<Box<rounds::Back>>,
    /// The session that it came in.
    session: u64,
    /// When it expires, by the clock of timers.
    deadline: Instant,
    /// The end of the client's patience.
    answer_by: Option<Instant>,
    /// Whether people have been told of the hold.
    is_announced: bool,
    /// Whether its tool is another than was accepted.
    is_changed: bool,
    /// Its part of a trace, where somebody looks at that.
    span: Option<Arc<spans::HoldSpan>>,
    suspended: Suspended<Answer>,
}

impl fmt::Debug for HeldCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldCall").field("id", &self.hold.id).finish_non_exhaustive()
    }
}

impl HeldCall {
    /// The id that people will use for it.
    pub fn id(&self) -> HoldId {
        self.hold.id
    }

    /// The raw token for progress, if the client wants to hear of it.
    pub fn progress_token(&self) -> Option<&str> {
        self.progress_token.as_deref()
    }

    /// The length of its frame.
    pub fn frame_bytes(&self) -> usize {
        self.hold.frame.len()
    }

    /// It cannot be kept after all, for the reason in `text`. It was never announced, and never runs.
    pub fn refusal(&self, text: &str) -> Refusal {
        self.refused.clone().ended(self.hold.id, Cause::Unavailable, text)
    }

    /// What the agent may be told while it waits: the policy's words, and the id for the person to use.
    pub fn message(&self) -> String {
        refusal::waits(self.refused.hold_message.as_deref(), self.hold.id)
    }
}

/// An approved call, on record as forwarding and not sent yet: send it, or say [`Gate::not_forwarded`].
#[derive(Debug)]
pub struct Approved {
    permitted: Permitted,
    hold: HoldId,
    refused: Refused,
    edited: Option<Arc<Edited>>,
}

impl Approved {
    /// The hold that was approved. It is not the id under which the call came, if that was a retry.
    pub fn hold(&self) -> HoldId {
        self.hold
    }

    /// What the server's answer has to say to the agent, if the call was changed.
    pub fn edited(&self) -> Option<Arc<Edited>> {
        self.edited.clone()
    }

    /// The id of the request in the frame.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.refused.id.as_ref()
    }

    /// The frame to send.
    pub fn into_permitted(self) -> Permitted {
        self.permitted
    }

    /// It cannot be sent any more: what the client hears instead.
    pub fn too_late(self, why: Withdrawal) -> Refusal {
        self.refused.withdrawn(self.hold, why)
    }

    /// The frame to send, and what the client hears if no answer to it comes back.
    pub fn split(self) -> (Permitted, Unanswered) {
        (self.permitted, Unanswered { hold: self.hold, refused: self.refused })
    }
}

/// An approved call that is being sent: how to word it if the client cannot have the server's own answer.
#[derive(Clone, Debug)]
pub struct Unanswered {
    hold: HoldId,
    refused: Refused,
}

impl Unanswered {
    /// The hold that was approved.
    pub fn hold(&self) -> HoldId {
        self.hold
    }

    /// Not one byte of it was sent.
    pub fn not_sent(self, why: Withdrawal) -> Refusal {
        self.refused.withdrawn(self.hold, why)
    }

    /// It was sent, and nobody knows what became of it.
    pub fn lost(self) -> Refusal {
        self.refused.lost(self.hold)
    }

    /// The server has answered with the HTTP status `status`, which cannot be passed on any more.
    pub fn refused_upstream(self, status: u16) -> Refusal {
        self.refused.refused_upstream(self.hold, status)
    }
}

/// How a held call came out of the table.
#[derive(Debug)]
pub enum Released {
    /// It may run now.
    Resume(Box<Approved>),
    /// It does not run; tell the client.
    Refuse(Refusal),
    /// It does not run, because nobody waits for it any more. Tell the client, if there is one, and then have it recorded.
    Withdrawn {
        /// What to tell.
        refusal: Refusal,
        /// What to give to [`Gate::record_withdrawal`].
        end: Unrecorded,
    },
}

impl Released {
    /// The id of the request that was held, under which its client hears how that ends.
    pub fn request_id(&self) -> Option<&RequestId> {
        match self {
            Self::Resume(approved) => approved.request_id(),
            Self::Refuse(refusal) | Self::Withdrawn { refusal, .. } => refusal.request_id(),
        }
    }
}

/// Something that watchers hear of.
#[derive(Clone, Debug)]
pub enum News {
    /// A call waits for people, and its record is durable.
    Held(Arc<NewHold>),
    /// Somebody has voted on a held call, and more people are needed.
    Voted {
        /// The hold.
        hold: Arc<NewHold>,
        /// The vote.
        vote: Vote,
    },
    /// A held call still waits: whoever may decide is reminded, and perhaps others may now too.
    Waiting {
        /// The hold.
        hold: Arc<NewHold>,
        /// Roles, teams or people who may decide from now on; none: a reminder.
        to: Vec<String>,
    },
    /// A held call has reached this state.
    Now {
        /// The hold.
        hold: Arc<NewHold>,
        /// Its state.
        state: State,
        /// The verdict, where a person gave one.
        vote: Option<Vote>,
    },
    /// Other processes may have done anything: what waits is to be listed anew.
    Anew,
}

/// What became of a verdict: the state that it led to.
type Answer = Result<State, StoreError>;

/// The policy enforcement point of one process, for all the servers behind it.
pub struct Gate {
    instance: Arc<str>,
    policy: ArcSwap<Policy>,
    store: Store,
    table: Arc<HoldTable<Answer>>,
    news: broadcast::Sender<News>,
    /// Tells whoever waits for it that a hold has got or lost its caller.
    moved: Notify,
    /// What is to be put on record as soon as that can be done.
    owed: owed::AllOwed,
    /// The calls that people are to hear of again.
    reminders: reminders::Reminders,
    /// Counts what is held, for the alarm.
    bursts: bursts::Bursts,
    /// What is known of the servers' tools.
    tools: tools::KnownTools,
    /// Taken by whoever counts votes.
    voting: tokio::sync::Mutex<()>,
    /// Questions of servers about approved calls.
    continuations: continuation::Continuations,
    /// What states for clients are sealed with.
    seal: rounds::Seal,
    grant_seconds: u32,
    /// How far what is decided here can be trusted, because of how this gate is deployed.
    deployed: Assurance,
    is_dead: IsDead,
    /// Makes spans, where somebody collects them.
    tracer: Option<Arc<Tracer>>,
    /// What watchers have been told of, where others tell too.
    told_of: fleet::ToldOf,
}

/// Whether the process of this name in the record is known to be dead.
pub type IsDead = Box<dyn Fn(&str) -> bool + Send + Sync>;

impl Gate {
    /// A gate that keeps `policy` and records in `store`. `instance` names this process for the record.
    pub fn new(instance: Arc<str>, policy: Arc<Policy>, store: Store, limits: GateLimits) -> Self {
        let table = Arc::new(HoldTable::new(limits.holds_max, limits.held_frame_bytes_max));
        let (news, _) = broadcast::channel(NEWS_KEPT_MAX);
        Self {
            instance,
            policy: ArcSwap::new(policy),
            store,
            table,
            news,
            moved: Notify::new(),
            owed: owed::AllOwed::default(),
            reminders: reminders::Reminders::default(),
            bursts: bursts::Bursts::default(),
            tools: tools::KnownTools::default(),
            voting: tokio::sync::Mutex::new(()),
            continuations: continuation::Continuations::default(),
            seal: rounds::Seal::default(),
            grant_seconds: limits.grant_seconds,
            deployed: Assurance::L0,
            is_dead: Box::new(|_| false),
            tracer: None,
            told_of: fleet::ToldOf::default(),
        }
    }

    /// The same, able to tell which of the other processes on the record are dead: it takes over what they have left as
    /// soon as it meets it.
    #[must_use]
    pub fn with_is_dead(self, is_dead: IsDead) -> Self {
        Self { is_dead, ..self }
    }

    /// The same, deployed so that what asks can reach less: by the word of whoever runs it.
    #[must_use]
    pub fn deployed(self, deployed: Assurance) -> Self {
        Self { deployed, ..self }
    }

    /// How far what is decided here can be trusted at most.
    pub fn assurance(&self) -> Assurance {
        self.deployed
    }

    /// Judges one frame of the client. Total: what is not permitted here does not go upstream.
    pub fn screen(&self, caller: &Caller, frame: Frame) -> Screened {
        let Some(method) = frame.method() else {
            // A response: whether anybody asked for it is the session's to know.
            return Screened::Pass(Permitted::new(frame));
        };
        if method == method::TOOLS_CALL {
            return self.counted(caller, self.screen_tool_call(caller, frame));
        }
        let policy = self.policy.load();
        if policy.gates_method(method) {
            return self.counted(caller, self.screen_other_method(caller, frame));
        }
        if policy.gates_look_alike(&mcp::fold_method(method)) {
            return Screened::Refuse(unknown_method(&frame));
        }
        Screened::Pass(Permitted::new(frame))
    }

    fn screen_tool_call(&self, caller: &Caller, frame: Frame) -> Screened {
        if frame.kind() != Kind::Request {
            self.note(caller, "", "a tools/call without an id cannot be answered");
            return Screened::Refuse(Refusal::dropped("a tools/call without an id cannot be answered"));
        }
        let id = frame.id().cloned();
        let (frame, back) = match rounds::come_back(frame) {
            Ok(call) => call,
            Err(text) => {
                self.note(caller, "", text);
                return Screened::Refuse(Refusal::invalid(id, ErrorCode::INVALID_PARAMS, text));
            }
        };
        let judged = match ToolCall::parse(&frame) {
            Ok(call) => self.judge_tool_call(caller, &call),
            Err(error) => Err(error.to_string()),
        };
        match judged {
            Ok(None) => Screened::Pass(Permitted::new(frame)),
            Ok(Some(judged)) => self.apply(caller, frame, Judged { back, ..judged }),
            Err(text) => {
                self.note(caller, "", &text);
                Screened::Refuse(Refusal::invalid(frame.id().cloned(), ErrorCode::INVALID_PARAMS, text))
            }
        }
    }

    /// What the policy says of a call, or why it cannot be asked. None: it passes, and nothing more need be known of it.
    fn judge_tool_call(&self, caller: &Caller, call: &ToolCall<'_>) -> Result<Option<Judged>, String> {
        if sanitize::is_mixed_script(&call.name) && !caller.mixed_script_tools.contains(&*call.name) {
            return Err("the tool's name mixes scripts, and the server has not listed it".to_owned());
        }
        if let (Some(negotiated), Some(declared)) = (&caller.revision, &call.protocol_version)
            && **negotiated != **declared
        {
            return Err(
                "the request declares another protocol version than the session has negotiated".to_owned()
            );
        }
        let client = call.client.as_ref().map_or(&*caller.client, |client| &*client.name);
        let policy = self.policy.load();
        let doubt = self.tools.doubt(&caller.server, &call.name, &caller.tools);
        let decision = policy.decide(&Call {
            server: &caller.server,
            method: method::TOOLS_CALL,
            tool: Some(&call.name),
            arguments: call.arguments,
            client,
            principal: &caller.principal,
            annotations: caller.tools.annotations(&call.name),
            now: Timestamp::now(),
        });
        let decision = match doubt {
            Some(doubt) => tools::in_doubt(doubt, decision),
            None => decision,
        };
        if decision.effect == Effect::Allow && decision.mode != Mode::Audit {
            return Ok(None);
        }
        Ok(Some(Judged {
            tool: Arc::from(&*call.name),
            agent: call
                .client
                .as_ref()
                .map_or_else(|| Arc::clone(&caller.agent), |client| client.to_string().into()),
            era: if call.is_modern() { Era::Modern } else { Era::Legacy },
            progress_token: call.progress_token.map(Into::into),
            is_task: if call.is_modern() { call.declares_tasks } else { tasks::asks_for_task(caller, call) },
            can_ask: if call.is_modern() { call.declares_elicitation } else { caller.can_ask },
            back: None,
            plan: rounds::plan(caller, &policy, Some(call)),
            doubt,
            decision,
            policy_sha256: policy.digest(),
        }))
    }

    /// A method that some rule may name: the rule speaks of its `params`.
    fn screen_other_method(&self, caller: &Caller, frame: Frame) -> Screened {
        let method = frame.method().unwrap_or_default();
        let policy = self.policy.load();
        let decision = policy.decide(&Call {
            server: &caller.server,
            method,
            tool: None,
            arguments: frame.params().unwrap_or("{}"),
            client: &caller.client,
            principal: &caller.principal,
            now: Timestamp::now(),
            ..Call::default()
        });
        if frame.kind() != Kind::Request && decision.effect == Effect::Hold {
            self.note(caller, "", "a notification cannot be held");
            return Screened::Refuse(Refusal::dropped("a notification cannot be held"));
        }
        let judged = Judged {
            tool: Arc::from(""),
            agent: Arc::clone(&caller.agent),
            era: Era::Legacy,
            progress_token: None,
            is_task: false,
            can_ask: false,
            back: None,
            plan: rounds::plan(caller, &policy, None),
            doubt: None,
            decision,
            policy_sha256: policy.digest(),
        };
        self.apply(caller, frame, judged)
    }

    /// Turns the policy's decision on `frame` into what happens to it.
    fn apply(&self, caller: &Caller, frame: Frame, judged: Judged) -> Screened {
        let decision = &judged.decision;
        let is_asked_task = judged.is_task && judged.era == Era::Legacy;
        let refused = |wanted| Refused {
            id: frame.id().cloned(),
            era: judged.era,
            is_tool_call: frame.method() == Some(method::TOOLS_CALL),
            on_rejection: tasks::on_rejection(is_asked_task, wanted),
            hold_message: decision.terms.as_ref().and_then(|terms| terms.hold_message.clone()),
        };
        match decision.effect {
            Effect::Allow => {
                self.record_audited(caller, &frame, &judged.tool, decision);
                Screened::Pass(Permitted::new(frame))
            }
            Effect::Deny => {
                self.store.ride_along(AuditEvent {
                    frame_sha256: Some(frame.sha256()),
                    method: frame.method().map(str::to_owned),
                    rules: decision.rules.iter().map(ToString::to_string).collect(),
                    reason: Some(decision.reason.to_string()),
                    notes: decision.notes.clone(),
                    ..self.event(Occasion::Denied, caller, &judged.tool)
                });
                Screened::Refuse(refused(decision.on_rejection).denied(&decision.reason))
            }
            Effect::Hold => {
                let terms = decision.terms.clone().unwrap_or_default();
                let refused = refused(terms.on_rejection);
                // The frame's own copy: a slice would keep the whole read buffer alive for as long as people think.
                let frame = frame.detached();
                let Some(hold) = self.new_hold(caller, &frame, &judged, &terms) else {
                    let text = "it could not be given an id";
                    return Screened::Refuse(refused.ended(HoldId([0; 16]), Cause::Unavailable, text));
                };
                let hold = Arc::new(hold);
                let session = caller.session.unwrap_or_else(next_session);
                let rounds = judged.rounds(terms.may_elicit);
                match self.table.suspend(Arc::clone(&hold), session) {
                    Ok(suspended) => Screened::Hold(Box::new(HeldCall {
                        bytes: frame.into_bytes(),
                        hold,
                        refused,
                        progress_token: judged.progress_token,
                        is_task: judged.is_task,
                        rounds,
                        ask: None,
                        back: judged.back,
                        session,
                        deadline: Instant::now() + terms.timeout,
                        answer_by: judged.plan.patience.map(|patience| Instant::now() + patience),
                        is_announced: false,
                        is_changed: judged.doubt == Some(Doubt::Changed),
                        span: None,
                        suspended,
                    })),
                    Err(full) => {
                        self.note(caller, &judged.tool, &full.to_string());
                        Screened::Refuse(refused.ended(hold.id, Cause::Unavailable, &full.to_string()))
                    }
                }
            }
        }
    }

    fn new_hold(
        &self,
        caller: &Caller,
        frame: &Frame,
        judged: &Judged,
        terms: &HoldTerms,
    ) -> Option<NewHold> {
        let decision = &judged.decision;
        let id = HoldId::random().ok()?;
        let created_at = Timestamp::now();
        Some(NewHold {
            id,
            owner: Arc::clone(&self.instance),
            server: Arc::clone(&caller.server),
            method: method_name(frame),
            tool: Arc::clone(&judged.tool),
            agent: Arc::clone(&judged.agent),
            principal: Arc::clone(&caller.principal),
            frame: frame.line(),
            frame_sha256: frame.sha256(),
            call_sha256: Some(call_sha256(frame)?),
            tool_sha256: self.tools.digest(&caller.server, &judged.tool, &caller.tools),
            terms_sha256: Some(terms.digest(&decision.rules)),
            quorum: quorum::quorum(terms),
            policy_sha256: judged.policy_sha256,
            rules: decision.rules.clone(),
            reason: Arc::clone(&decision.reason),
            notes: decision.notes.clone(),
            created_at,
            expires_at: created_at.checked_add(terms.timeout).unwrap_or(created_at),
        })
    }

    /// Everything that is held or ends from now on.
    pub fn watch(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// The holds of this process that can be decided, the oldest first.
    pub fn holds(&self) -> Vec<Arc<NewHold>> {
        self.table.list()
    }

    /// At most `max` of them, from the one behind the place `after` on, and with them those that are just losing their callers.
    pub fn holds_after(&self, after: Option<Place>, max: usize) -> Vec<Arc<NewHold>> {
        self.table.list_after(after, max)
    }

    /// One of them.
    pub fn held(&self, id: HoldId) -> Option<Arc<NewHold>> {
        self.table.get(id)
    }

    /// How many calls wait, including those whose record is being written.
    pub fn holds_len(&self) -> usize {
        self.table.len()
    }

    /// The record behind this gate.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Puts `policy` into force, because of `who`. `false` if it is the one that is in force. What waits keeps what it waits
    /// for, and may need more.
    pub fn replace_policy(&self, policy: Policy, who: &str) -> bool {
        let (digest, rules, mode) = (policy.digest(), policy.rules().len(), policy.mode());
        if self.policy.load().digest() == digest {
            return false;
        }
        fail_point!("policy.before_force");
        self.policy.store(Arc::new(policy));
        fail_point!("policy.in_force");
        self.meter().policy_loaded(true);
        self.store.ride_along(AuditEvent {
            who: Some(who.to_owned()),
            policy_sha256: Some(digest),
            note: Some(format!("{}, mode {}", crate::view::counted(rules, "rule"), mode.word())),
            ..AuditEvent::new(Occasion::PolicyLoaded, &self.instance, Timestamp::now())
        });
        true
    }

    /// Records that a policy with mistakes was not put into force.
    pub fn policy_refused(&self, why: &str, who: &str) {
        self.meter().policy_loaded(false);
        self.store.ride_along(AuditEvent {
            who: Some(who.to_owned()),
            policy_sha256: Some(self.policy.load().digest()),
            reason: Some(why.to_owned()),
            ..AuditEvent::new(Occasion::PolicyRefused, &self.instance, Timestamp::now())
        });
    }

    /// The random name of this process in the record.
    pub fn instance(&self) -> &Arc<str> {
        &self.instance
    }

    /// Puts into the record that a frame was refused or dropped before any rule was asked.
    pub fn note(&self, caller: &Caller, tool: &str, note: &str) {
        self.store.ride_along(AuditEvent {
            note: Some(note.to_owned()),
            ..self.event(Occasion::Refused, caller, tool)
        });
    }

    fn event(&self, occasion: Occasion, caller: &Caller, tool: &str) -> AuditEvent {
        AuditEvent {
            who: Some(caller.principal.to_string()),
            server: Some(caller.server.to_string()),
            tool: (!tool.is_empty()).then(|| tool.to_owned()),
            agent: (!caller.agent.is_empty()).then(|| caller.agent.to_string()),
            policy_sha256: Some(self.policy.load().digest()),
            ..AuditEvent::new(occasion, &self.instance, Timestamp::now())
        }
    }
}

/// The name of the frame's method. Nearly all that is held has the same one.
fn method_name(frame: &Frame) -> Arc<str> {
    static TOOLS_CALL: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(method::TOOLS_CALL));
    match frame.method() {
        Some(method::TOOLS_CALL) => Arc::clone(&TOOLS_CALL),
        other => Arc::from(other.unwrap_or_default()),
    }
}

/// The answer to a name that some server might take for a gated method.
fn unknown_method(frame: &Frame) -> Refusal {
    match frame.id() {
        Some(id) => {
            let text = "no such method; its name resembles a gated one";
            Refusal::invalid(Some(id.clone()), ErrorCode::METHOD_NOT_FOUND, text)
        }
        None => Refusal::dropped("no such notification; its name resembles a gated method"),
    }
}
