//! Calls of 2026-07-28 that are answered with a state alone, and come back with it by themselves; and questions to the client's own
//! user, in both eras.
//!
//! A part of `gate`. The state is sealed with a key of the record: it names the hold, and counts once, for the same call of the same
//! principal to the same server, until its time is over. It is no approval: whoever comes back with it finds what people have decided.
//! A question to the client's user is asked only where the rules say so; the answer comes from the program that is being gated.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jiff::Timestamp;
use tokio::{
    sync::{OnceCell, oneshot},
    time::Instant,
};

use super::{Caller, Gate, HeldCall, Judged, Refusal, refusal::Refused, tasks};
use crate::{
    audit::{AuditEvent, Occasion},
    digest::Digest,
    hold::{HoldId, HoldRecord, NewHold, Said, State, Verdict},
    jsonrpc::{ErrorCode, Frame, RequestId, id::quote, scan::Param, scan::unescape},
    mcp::{self, Elicited, Era, ToolCall},
    policy::Policy,
    principal::Principal,
    sanitize,
    store::{Store, StoreError},
    view,
    waiting::{Asking, Plan, Rung},
};

/// What our states begin with; all others are a server's.
const PREFIX: &str = "holdshort1.";

/// The name of the key in the record.
const KEY_NAME: &str = "rounds";

/// What the seal is over, besides the state itself.
const FORM: &[u8] = b"holdshort-round/1\n";

/// How often a call comes back by itself. SDKs do so ten times, and then fail.
pub const ROUNDS_MAX: u8 = 8;

/// The bytes of a state before its seal: the hold, the round, a number used once, and until when; the digest of what the client's user was
/// shown follows, if they were asked.
const BODY_BYTES: usize = 16 + 1 + 8 + 8;

/// The bytes of the seal.
const SEAL_BYTES: usize = 32;

/// In the round: the client's user has been asked.
const ASKED: u8 = 0x80;

/// The longest question, in characters. A call that does not fit is not asked about in this way.
const QUESTION_CHARS_MAX: usize = 4_000;

/// How wide the rows of a call are in a question, in columns.
const QUESTION_COLUMNS: usize = 100;

/// What is noted of an approval by the client's own user.
const NOT_INDEPENDENT: &str = "asked through the client that made the call: not independent";

/// How a call may be kept besides waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounds {
    /// How often it has come back, where it can.
    pub(super) round: Option<u8>,
    /// Whether the client's user may be asked.
    pub(super) may_ask: bool,
}

/// With what a call has come back.
#[derive(Debug)]
pub(super) struct Back {
    state: String,
    /// The raw object of answers.
    answers: Option<String>,
}

/// The key of the record, once it was needed.
pub(super) type Seal = OnceCell<hmac::Key>;

/// What a client's user is asked about.
#[derive(Clone, Copy, Debug)]
pub struct AskedAbout {
    /// The hold.
    pub hold: HoldId,
    /// The digest of what they are shown of it; none in states of older versions.
    pub shown_sha256: Option<Digest>,
}

/// A question to the client's user (up to 2025-11-25).
#[derive(Debug)]
pub struct ClientQuestion {
    /// What it is about.
    pub about: AskedAbout,
    /// The id of the request.
    pub id: RequestId,
    /// The request.
    pub line: bytes::Bytes,
}

/// What a state of ours says.
#[derive(Clone, Copy)]
struct Sealed {
    about: AskedAbout,
    round: u8,
    is_asked: bool,
    until: Timestamp,
}

/// The call in `frame` and with what it comes back, if that is a state of ours. What the server may get is the call alone.
pub(super) fn come_back(frame: Frame) -> Result<(Frame, Option<Box<Back>>), &'static str> {
    let Some(state) = frame.param(Param::RequestState).filter(|token| token.starts_with('"')) else {
        return Ok((frame, None));
    };
    let state = unescape(state);
    if !state.starts_with(PREFIX) {
        return Ok((frame, None));
    }
    let back =
        Back { state: state.into_owned(), answers: frame.param(Param::InputResponses).map(str::to_owned) };
    let call = mcp::without_answers(&frame).and_then(|call| Frame::from_client(call).ok());
    Ok((call.ok_or("the call cannot be read without its state")?, Some(Box::new(back))))
}

fn sealing(key: &hmac::Key, body: &[u8], call: &NewHold) -> hmac::Context {
    let mut seal = hmac::Context::with_key(key);
    let lengths = [call.server.len(), call.principal.len()].map(usize::to_be_bytes);
    let call_sha256 = call.call_sha256.map_or([0; 32], |digest| digest.0);
    for part in
        [FORM, lengths.as_flattened(), call.server.as_bytes(), call.principal.as_bytes(), &call_sha256, body]
    {
        seal.update(part);
    }
    seal
}

/// The seal of `body` for `call`, compared without telling where it differs.
fn is_sealed(key: &hmac::Key, body: &[u8], call: &NewHold, tag: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(sealing(key, body, call).sign().as_ref(), tag).is_ok()
}

impl Sealed {
    fn write(&self, key: &hmac::Key, call: &NewHold) -> Option<String> {
        let mut body = vec![0; BODY_BYTES];
        body[..16].copy_from_slice(&self.about.hold.0);
        body[16] = self.round | if self.is_asked { ASKED } else { 0 };
        getrandom::fill(&mut body[17..25]).ok()?;
        body[25..].copy_from_slice(&self.until.as_second().to_be_bytes());
        body.extend(self.about.shown_sha256.iter().flat_map(|shown| shown.0));
        let tag = sealing(key, &body, call).sign();
        Some(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode([&body[..], tag.as_ref()].concat())))
    }

    fn read(key: &hmac::Key, state: &str, call: &NewHold) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(state.strip_prefix(PREFIX)?).ok()?;
        let (body, tag) = bytes.split_at_checked(bytes.len().checked_sub(SEAL_BYTES)?)?;
        if !is_sealed(key, body, call, tag) {
            return None;
        }
        let round = *body.get(16)?;
        Some(Self {
            about: AskedAbout {
                hold: HoldId(body.get(..16)?.try_into().ok()?),
                shown_sha256: body.get(BODY_BYTES..)?.try_into().ok().map(Digest),
            },
            round: round & !ASKED,
            is_asked: round & ASKED != 0,
            until: Timestamp::from_second(i64::from_be_bytes(body.get(25..BODY_BYTES)?.try_into().ok()?))
                .ok()?,
        })
    }
}

async fn key<'s>(seal: &'s Seal, store: &Store) -> Result<&'s hmac::Key, StoreError> {
    seal.get_or_try_init(|| async {
        let key = store.key(KEY_NAME).await?;
        Ok(hmac::Key::new(hmac::HMAC_SHA256, &key))
    })
    .await
}

impl Judged {
    /// In which ways the call may be kept besides waiting, if it is held with `may_elicit`.
    pub(super) fn rounds(&self, may_elicit: bool) -> Rounds {
        let round = (self.plan.rung == Rung::Rounds).then_some(0);
        Rounds { round, may_ask: may_elicit && self.can_ask && !self.is_task }
    }
}

impl HeldCall {
    /// Whether the client's user may be asked beside the wait: up to 2025-11-25.
    fn may_ask(&self) -> bool {
        self.rounds.may_ask && self.refused.era == Era::Legacy
    }

    /// Hears of the question to the client's user, if one may be asked beside the wait.
    pub fn asks(&mut self) -> Option<oneshot::Receiver<ClientQuestion>> {
        let (ask, asked) = self.may_ask().then(oneshot::channel).unzip();
        self.ask = ask;
        asked
    }

    /// The question to the client's user, if one is to be asked beside the wait.
    pub(super) fn question(&self) -> Option<ClientQuestion> {
        if !self.may_ask() {
            return None;
        }
        let (message, about) = question(&self.hold)?;
        let id = RequestId::from_token(&quote(&format!("holdshort-{}", HoldId::random().ok()?)))?;
        let line = mcp::elicitation_request(&id, &message);
        Some(ClientQuestion { about, id, line })
    }
}

impl Gate {
    /// A call has come back with a state of ours: to its hold, and to no other. What it cannot have any more, it is told.
    pub(super) async fn comes_back(&self, held: &mut HeldCall, back: Back) -> Result<(), Refusal> {
        let invalid = |text: &str| Refusal::invalid(held.refused.id.clone(), ErrorCode::INVALID_PARAMS, text);
        let refuse = |text: &'static str| {
            self.store.ride_along(AuditEvent {
                note: Some(text.to_owned()),
                ..AuditEvent::of(Occasion::Refused, &held.hold, self.instance(), Timestamp::now())
            });
            Err(invalid(text))
        };
        let now = Timestamp::now();
        let sealed = match key(&self.seal, &self.store).await {
            Ok(key) => Sealed::read(key, &back.state, &held.hold),
            Err(error) => {
                tracing::error!(%error, "the key of states cannot be read");
                return Err(held.refusal("the record could not be read"));
            }
        };
        let Some(sealed) = sealed else {
            return refuse("the requestState was not given out for this call");
        };
        if sealed.until <= now {
            return refuse("the time of this requestState is over");
        }
        match self.store.use_once(Digest::of(back.state.as_bytes()), sealed.until).await {
            Ok(true) => {}
            Ok(false) => return refuse("this requestState was used before"),
            Err(error) => {
                tracing::error!(%error, "that a state was used cannot be recorded");
                return Err(held.refusal("the record could not be written"));
            }
        }
        if let Some(answers) = back.answers.filter(|_| sealed.is_asked) {
            self.is_elicited(sealed.about, &Elicited::in_responses(&answers)).await;
        }
        let Ok(Some(record)) = self.store.hold(sealed.about.hold).await else {
            return refuse("the record does not know the hold of this requestState");
        };
        let mut standing = record.standing();
        standing.lapse(now);
        let goes_on = match standing.state {
            State::Held | State::Granted | State::Unknown => true,
            State::Rejected => standing.is_awaited,
            _ => false,
        };
        if !goes_on {
            return Err(tasks::ended(held.refused.clone(), &record, standing.state));
        }
        held.rounds.round = held.rounds.round.map(|_| sealed.round + 1);
        held.rounds.may_ask &= !sealed.is_asked;
        Ok(())
    }

    /// A call is on record and would wait: in 2026-07-28 its client is asked at once, if it may be.
    pub(super) fn asks_at_once(&self, held: &mut HeldCall) {
        // What cannot be shown whole is not asked.
        held.rounds.may_ask = held.rounds.may_ask && question(&held.hold).is_some();
        if held.rounds.may_ask && held.refused.era == Era::Modern {
            held.answer_by = Some(Instant::now());
        }
    }

    /// The answer after which the client makes the call again by itself. `None`: it is told to.
    pub(super) async fn next_round(
        &self,
        hold: &NewHold,
        refused: &Refused,
        rounds: Rounds,
    ) -> Option<Refusal> {
        if refused.era != Era::Modern {
            return None;
        }
        let asked = if rounds.may_ask { question(hold) } else { None };
        let round = rounds.round.filter(|round| *round < ROUNDS_MAX);
        if asked.is_none() && round.is_none() {
            return None;
        }
        let (message, about) = asked.unzip();
        let about = about.unwrap_or(AskedAbout { hold: hold.id, shown_sha256: None });
        let until = hold.expires_at.checked_add(self.grant_of(hold)).unwrap_or(hold.expires_at);
        let sealed = Sealed { about, round: round.unwrap_or_default(), is_asked: message.is_some(), until };
        let key = key(&self.seal, &self.store).await;
        let key =
            key.inspect_err(|error| tracing::error!(%error, "the key of states cannot be read")).ok()?;
        let state = sealed.write(key, hold)?;
        Some(refused.clone().come_back(hold.id, mcp::come_back(&state, message.as_deref())))
    }

    /// The client's user has answered our question about `about` with `result`, the raw result of the client's response.
    pub async fn elicited(&self, about: AskedAbout, result: Option<&str>) {
        let answer = result.map_or(Elicited::Nothing, Elicited::parse);
        self.is_elicited(about, &answer).await;
    }

    async fn is_elicited(&self, about: AskedAbout, answer: &Elicited) {
        let id = about.hold;
        let (verdict, comment) = match answer {
            Elicited::Approve => (Verdict::Approve, NOT_INDEPENDENT.to_owned()),
            Elicited::Reject(reason) => {
                let reason = reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
                (Verdict::Reject, reason.unwrap_or("the user of this client declined").to_owned())
            }
            Elicited::Nothing => return,
        };
        let Ok(Some(HoldRecord { hold, .. })) = self.as_shown(id).await else { return };
        let approver = Principal::Elicited { client: hold.principal.to_string() };
        // Asked about as it was made again, the call is not what others are shown, though it does the same.
        let shown_sha256 = about.shown_sha256.filter(|shown| hold.shown() == Some(*shown));
        let said = Said { shown_sha256, ..verdict.into() };
        if let Err(error) = self.resolve(id, said, &approver, Some(&comment)).await {
            tracing::warn!(hold = %id, %error, "the answer of a client's user has no effect");
        }
    }

    /// How long an approval of `hold` counts that no caller was there for: what its rules say, or the policy in force.
    pub(super) fn grant_of(&self, hold: &NewHold) -> Duration {
        let of_rules = hold.quorum.as_ref().and_then(|quorum| quorum.grant_seconds).map(Duration::from_secs);
        let usual = || self.policy.load().waiting().grant;
        of_rules.or_else(usual).unwrap_or_else(|| Duration::from_secs(self.grant_seconds.into()))
    }
}

/// How a call of `caller` waits, or another request.
pub(super) fn plan(caller: &Caller, policy: &Policy, call: Option<&ToolCall<'_>>) -> Plan {
    let (client, version) = match call.and_then(|call| call.client.as_ref()) {
        Some(client) => (&*client.name, &*client.version),
        None => (&*caller.client, caller.agent.strip_prefix(&*caller.client).unwrap_or_default().trim()),
    };
    let comes_back =
        |call: &ToolCall<'_>| call.is_modern() && call.request_state.is_none() && !call.has_input_responses;
    Plan::of(Asking {
        client,
        version,
        wants_progress: call.is_some_and(|call| call.progress_token.is_some()),
        takes_rounds: call.is_some_and(comes_back),
        wait: caller.wait,
        settings: policy.waiting(),
    })
}

/// What the client's user is asked, with what that is about: `hold`. `None` if it would not be the whole call.
fn question(hold: &NewHold) -> Option<(String, AskedAbout)> {
    let frame = Frame::from_client(hold.frame.clone()).ok().filter(|_| !hold.tool.is_empty())?;
    if frame.text().len() > 4 * QUESTION_CHARS_MAX {
        return None;
    }
    let mut message = format!(
        "May the tool {} of the server {} run with these arguments? (hold {})",
        sanitize::render(&hold.tool),
        sanitize::render(&hold.server),
        hold.id.short()
    );
    let reason = sanitize::render(&hold.reason);
    if !reason.is_empty() {
        message.push_str(&format!("\nWhy it waits: {reason}"));
    }
    let mut rows = view::json_rows(frame.param(Param::Arguments).unwrap_or("{}"), QUESTION_COLUMNS);
    if let Some(besides) = view::besides_arguments(frame.text()) {
        rows.push("Besides the arguments:".to_owned());
        rows.extend(view::json_rows(&besides, QUESTION_COLUMNS));
    }
    for note in &hold.notes {
        rows.push(format!("Note: {}", sanitize::render(note)));
    }
    // Behind a mark that begins every row, so that no row can look like a line of ours.
    rows.iter().for_each(|row| message.push_str(&format!("\n| {row}")));
    let about = AskedAbout { hold: hold.id, shown_sha256: hold.shown() };
    (message.chars().count() <= QUESTION_CHARS_MAX).then_some((message, about))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        gate::{GateLimits, Released, Screened},
        policy::Source,
    };

    /// A call that comes back with `state`, or is made for the first time.
    fn call(gate: &Gate, state: Option<&str>) -> Box<HeldCall> {
        let state = state.map(|state| format!(",\"requestState\":\"{state}\"")).unwrap_or_default();
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"danger\",\"_meta\":{{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{{}}}}{state}}}}}"
        );
        let caller = Caller::new(&Principal::Anyone, "server".into());
        match gate.screen(&caller, Frame::from_client(Bytes::from(line)).unwrap()) {
            Screened::Hold(held) => held,
            other => panic!("it is held, not {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_whose_time_is_over_is_refused_and_the_hold_is_as_it_was() {
        let text = "version: 1\nwaiting: {default: 1s, grant: 10m}\nrules: [{name: danger, tool: danger, action: hold, timeout: 5m}]\n";
        let policy = Policy::parse(vec![Source { name: "policy.yaml".into(), text: text.into() }]).unwrap();
        let gate = Gate::new("gate".into(), Arc::new(policy), Store::in_memory(), GateLimits::default());
        let Released::Refuse(refusal) = gate.hold(call(&gate, None)).await else { panic!("it comes back") };
        let answer: serde_json::Value = serde_json::from_str(&refusal.text).unwrap();
        let state = answer["requestState"].as_str().unwrap();
        let hold = gate.detached().await.unwrap().remove(0).record.hold;
        let key = key(&gate.seal, &gate.store).await.unwrap();
        let sealed = Sealed::read(key, state, &hold).unwrap();
        let until = hold.expires_at + Duration::from_secs(600);
        assert_eq!(sealed.until.as_second(), until.as_second(), "as long as an approval can count");
        // The same, but that its time is over: now, and long ago.
        for until in [Timestamp::now(), Timestamp::UNIX_EPOCH] {
            let over = Sealed { until, ..sealed }.write(key, &hold).unwrap();
            let back = gate.record(call(&gate, Some(&over))).await.map(|held| held.id());
            let Err(Released::Refuse(refusal)) = back.map_err(|released| *released) else {
                panic!("refused")
            };
            assert!(refusal.text.contains("the time of this requestState is over"), "{}", refusal.text);
        }
        let events = gate.store.audit_events(0, 100).await.unwrap();
        let noted =
            events.iter().filter(|event| event.line.contains("the time of this requestState is over"));
        assert_eq!(noted.count(), 2);
        let waiting: Vec<_> =
            gate.detached().await.unwrap().iter().map(|listed| listed.record.hold.id).collect();
        assert_eq!(waiting, [hold.id], "nobody is asked anew");
        gate.record(call(&gate, Some(state))).await.expect("whose time is not over still counts");
    }
}
