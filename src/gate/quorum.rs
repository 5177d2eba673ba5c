//! Who may decide on a held call, and whether enough people have.
//!
//! A part of `gate`, asked for every verdict before it takes effect. One human has one vote, over all their identities and
//! channels; whoever asked, or owns the agent that asked, does not approve; whoever is no longer among the people of the
//! policy does not count. Votes that are not enough yet are durable in the record, and the call goes on waiting.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{Gate, News, ResolveError, proof::Wanted};
use crate::{
    hold::{Approval, HoldId, HoldRecord, NewHold, Quorum, Requirement, Said, Verdict, Vote},
    jsonrpc::Frame,
    mcp::ToolCall,
    policy::{Call, Decision, Effect, People, Person, Policy},
    principal::Principal,
    store::StoreError,
};

/// What the votes come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tally {
    /// More people are needed.
    Open,
    /// Enough have said what the last of them has said.
    Enough,
}

/// A vote that counts.
pub(super) struct Weighed {
    pub(super) vote: Vote,
    /// What an approval brings along.
    pub(super) approval: Approval,
    /// Whether enough people have said the same.
    pub(super) is_enough: bool,
    /// How long an approval counts that no caller is there for.
    pub(super) grant: Duration,
}

impl Gate {
    /// Whether `vote` is one that counts, and enough together with those before it. A vote that is not enough is recorded
    /// here; one that is, is the caller's to put into effect. Gives it with the human behind it, and with what it brings along
    /// if it is an approval that says more than yes: such a one has to be enough alone.
    pub(super) async fn weigh(
        &self,
        id: HoldId,
        vote: Vote,
        approver: &Principal,
        said: &Said,
    ) -> Result<Weighed, ResolveError> {
        let policy = self.policy.load_full();
        let hold = match self.table.get(id) {
            Some(hold) => hold,
            None => match self.store.hold(id).await {
                Ok(Some(record)) => Arc::new(record.hold),
                Ok(None) => return Err(ResolveError::NotFound),
                Err(error) => return Err(ResolveError::Unrecorded(error)),
            },
        };
        let as_shown = match said.shown_sha256.is_some() || said.proof.is_some() {
            true => match self.as_shown(id).await {
                Ok(Some(record)) => Arc::new(record.hold),
                Ok(None) => return Err(ResolveError::NotFound),
                Err(error) => return Err(ResolveError::Unrecorded(error)),
            },
            false => Arc::clone(&hold),
        };
        if said.shown_sha256.is_some_and(|shown| as_shown.shown() != Some(shown)) {
            return Err(ResolveError::NotWhatWasShown);
        }
        if vote.verdict == Verdict::Approve {
            // Another gate may have seen a moment ago that the tool has changed. A record that cannot be read cannot be written
            // either, and then the verdict has no effect.
            if let Err(error) = self.refresh_tools().await {
                tracing::error!(hold = %id, %error, "whether a tool has changed cannot be read");
            }
            if self.tools.has_changed_since(&hold) {
                return Err(ResolveError::ToolChanged);
            }
        }
        let mut requirements =
            hold.quorum.as_ref().map_or_else(Vec::new, |quorum| quorum.requirements.clone());
        if vote.verdict == Verdict::Approve && hold.policy_sha256 != policy.digest() {
            requirements.extend(asked_now(&policy, &hold)?);
        }
        let (approval, needed) = self.approval(&policy, &hold, said, vote.at)?;
        requirements.extend(needed);
        let vote = Vote { proof: said.proof.clone(), shown_sha256: said.shown_sha256, ..vote };
        let level = self.assurance_of(&policy, &as_shown, &vote)?;
        let waited = waited(&hold, vote.at);
        let grant = self.grant_of(&hold);
        if let Principal::Elicited { .. } = approver
            && !may_elicit(&policy, &hold, &requirements)
        {
            return Err(ResolveError::NotAllowed(approver.clone()));
        }
        let person = may_vote(policy.people(), &hold, &requirements, approver, vote.verdict, waited)?;
        let wanted = Wanted::by(&requirements);
        if vote.verdict == Verdict::Approve && !wanted.is_met(vote.proof.is_some(), level) {
            return Err(wanted.refusal());
        }
        if approval != Approval::default() && (wanted.is_any() || vote.proof.is_some()) {
            // What was signed is the call as it was made, once.
            let why = "a signed approval is for the call as it was made, once: neither edited nor remembered";
            return Err(ResolveError::NotEdited(why.to_owned()));
        }
        if approval != Approval::default() && !requirements.is_empty() {
            // Whoever may decide only because others were silent, has nothing to say of calls that nobody has been asked about.
            let waited = if approval.remember.is_some() { Duration::ZERO } else { waited };
            if !person.is_some_and(|person| is_enough_alone(policy.people(), &requirements, person, waited)) {
                return Err(ResolveError::NotAlone);
            }
        }
        let name = person.map(|person| person.name.to_string());
        let vote = Vote { person: name, assurance: Some(level), ..vote };
        let rejections = hold.quorum.as_ref().map_or(1, |quorum| quorum.required_rejections);
        if requirements.is_empty() && rejections <= 1 {
            return Ok(Weighed { vote, approval, is_enough: true, grant });
        }
        // One vote at a time: of two that arrive together, the second has to see the first.
        let _turn = self.voting.lock().await;
        let record = match self.store.hold(id).await {
            Ok(Some(record)) => record,
            Ok(None) => return Err(ResolveError::NotFound),
            Err(error) => return Err(ResolveError::Unrecorded(error)),
        };
        if record.votes.iter().any(|other| other.person == vote.person && other.verdict == vote.verdict) {
            return Err(ResolveError::VotedBefore);
        }
        let count = |votes: &[Vote]| {
            let counted = votes.iter().filter(|vote| self.gives(&policy, &hold, wanted, vote));
            let votes: Vec<Vote> = counted.cloned().collect();
            tally(policy.people(), &hold, &requirements, rejections, &votes, vote.verdict, waited)
        };
        let together: Vec<Vote> = record.votes.iter().cloned().chain([vote.clone()]).collect();
        if count(&together) == Tally::Enough {
            return Ok(Weighed { vote, approval, is_enough: true, grant });
        }
        match self.store.vote(id, Arc::clone(&self.instance), vote.clone()).await {
            Ok(record) => {
                // Another process may have recorded one in between.
                let enough = count(&record.votes) == Tally::Enough;
                if !enough {
                    self.announce(News::Voted { hold, vote: vote.clone() });
                }
                Ok(Weighed { vote, approval, is_enough: enough, grant })
            }
            Err(StoreError::NoSuchHold(_) | StoreError::NotHeld { .. }) => Err(self.ended(id, record)),
            Err(error) => Err(ResolveError::Unrecorded(error)),
        }
    }

    fn ended(&self, id: HoldId, record: HoldRecord) -> ResolveError {
        tracing::debug!(hold = %id, "a vote came too late");
        ResolveError::Ended(Box::new(record))
    }
}

/// How long the call has waited at `at`.
pub(super) fn waited(hold: &NewHold, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(hold.created_at)).unwrap_or_default()
}

/// Whether the user of the client that made the call may decide on it: the rules that held it say so, and those in force too; and
/// nobody else is asked for.
fn may_elicit(policy: &Policy, hold: &NewHold, requirements: &[Requirement]) -> bool {
    let then =
        hold.quorum.as_ref().is_some_and(|quorum| quorum.may_elicit && quorum.required_rejections <= 1);
    let now = hold.policy_sha256 == policy.digest()
        || decide_now(policy, hold, None)
            .and_then(|decision| decision.terms)
            .is_some_and(|terms| terms.may_elicit && terms.requirements.is_empty());
    then && now && requirements.is_empty()
}

/// What another policy than the one that held the call asks for: it cannot make what waits wider, only stricter.
fn asked_now(policy: &Policy, hold: &NewHold) -> Result<Vec<Requirement>, ResolveError> {
    let Some(decision) = decide_now(policy, hold, None) else { return Ok(Vec::new()) };
    match decision.effect {
        Effect::Deny => Err(ResolveError::DeniedNow(decision.reason.to_string())),
        Effect::Hold => Ok(decision.terms.map_or_else(Vec::new, |terms| terms.requirements.clone())),
        Effect::Allow => Ok(Vec::new()),
    }
}

/// What `policy` says now of a held call, or of `edited`, what somebody has made of it. The server's hints about the tool are
/// not known here, which makes nothing looser.
pub(super) fn decide_now(policy: &Policy, hold: &NewHold, edited: Option<&Frame>) -> Option<Decision> {
    let held;
    let frame = match edited {
        Some(edited) => edited,
        None => {
            held = Frame::from_client(hold.frame.clone()).ok()?;
            &held
        }
    };
    let call = ToolCall::parse(frame).ok().filter(|_| !hold.tool.is_empty());
    Some(policy.decide(&Call {
        server: &hold.server,
        method: &hold.method,
        tool: call.as_ref().map(|call| &*call.name),
        arguments: call.as_ref().map_or_else(|| frame.params().unwrap_or("{}"), |call| call.arguments),
        client: hold.agent.rsplit_once(' ').map_or(&*hold.agent, |(name, _)| name),
        principal: &hold.principal,
        now: hold.created_at,
        ..Call::default()
    }))
}

/// Whether `person`, who did not ask, is all that `requirements` ask for, `waited` after the call was held.
pub(super) fn is_enough_alone(
    people: &People,
    requirements: &[Requirement],
    person: &Person,
    waited: Duration,
) -> bool {
    let is = |person: &&Person, name: &str| people.is(person, name);
    requirements.iter().all(|requirement| requirement.is_filled(&[person], waited, &is))
}

/// The human behind `approver`, if they may say this of the call. None where the policy names no people, and one is enough.
fn may_vote<'p>(
    people: &'p People,
    hold: &NewHold,
    requirements: &[Requirement],
    approver: &Principal,
    verdict: Verdict,
    waited: Duration,
) -> Result<Option<&'p Person>, ResolveError> {
    if let Principal::Elicited { .. } = approver {
        // Nobody's identity: that it may count at all, `may_elicit` has said.
        return Ok(None);
    }
    if people.is_empty() {
        // Without people, nobody has said whom a channel's names and keys stand for.
        if let Principal::Channel { .. } | Principal::Key { .. } = approver {
            return Err(ResolveError::NotAllowed(approver.clone()));
        }
        return if requirements.is_empty() { Ok(None) } else { Err(ResolveError::NobodyMay) };
    }
    let person = approver.identities().iter().find_map(|identity| people.behind(identity));
    let person = person.ok_or_else(|| ResolveError::NotAllowed(approver.clone()))?;
    let asked = people.owner(&hold.principal).is_some_and(|owner| owner.name == person.name);
    if asked && verdict == Verdict::Approve {
        return Err(ResolveError::OwnCall);
    }
    let is = |name: &str| people.is(person, name);
    let concerned = requirements.is_empty()
        || requirements.iter().any(|requirement| requirement.concerns(waited, &is))
        || (asked && verdict == Verdict::Reject);
    if concerned { Ok(Some(person)) } else { Err(ResolveError::NotAllowed(approver.clone())) }
}

/// What `votes` come to, in the matter of `verdict`. The last word of each human counts, if they are still among the people
/// of the policy and did not ask for the call.
fn tally(
    people: &People,
    hold: &NewHold,
    requirements: &[Requirement],
    rejections: u32,
    votes: &[Vote],
    verdict: Verdict,
    waited: Duration,
) -> Tally {
    let owner = people.owner(&hold.principal).map(|owner| &owner.name);
    let mut last: Vec<(Option<&Person>, Verdict)> = Vec::new();
    for vote in votes {
        let person = vote.person.as_deref().and_then(|name| people.named(name));
        if person.is_none() && !people.is_empty() {
            continue;
        }
        let name = |person: Option<&Person>| person.map(|person| Arc::clone(&person.name));
        last.retain(|(other, _)| name(*other) != name(person));
        last.push((person, vote.verdict));
    }
    let of = |wanted| last.iter().filter(move |(_, verdict)| *verdict == wanted);
    let enough = match verdict {
        Verdict::Reject => of(Verdict::Reject).count() >= rejections as usize,
        Verdict::Approve => {
            let approve: Vec<&Person> = of(Verdict::Approve)
                .filter_map(|(person, _)| *person)
                .filter(|person| Some(&person.name) != owner)
                .collect();
            let is = |person: &&Person, name: &str| people.is(person, name);
            requirements.iter().all(|requirement| requirement.is_filled(&approve, waited, &is))
        }
    };
    if enough { Tally::Enough } else { Tally::Open }
}

/// What is left of the terms when they go into the record: nothing where one person decides.
pub(super) fn quorum(terms: &crate::hold::HoldTerms) -> Option<Arc<Quorum>> {
    let simple = terms.requirements.is_empty()
        && terms.required_rejections <= 1
        && terms.remind.is_none()
        && terms.remember.is_none()
        && !terms.may_edit
        && terms.grant.is_none()
        && !terms.may_elicit
        && terms.notify.is_empty();
    (!simple).then(|| {
        Arc::new(Quorum {
            requirements: terms.requirements.clone(),
            required_rejections: terms.required_rejections,
            remind_seconds: terms.remind.map(|every| every.as_secs()),
            remember: terms.remember,
            may_edit: terms.may_edit,
            grant_seconds: terms.grant.map(|grant| grant.as_secs()),
            may_elicit: terms.may_elicit,
            notify: terms.notify.clone(),
        })
    })
}
