//! Signed decisions: whose they are, what they are about, and how far they can be trusted.
//!
//! A part of `gate`. Asked when somebody decides, and once more just before a call goes on: a decision that was found in the
//! record is believed only as far as it is signed, where the rules want a signature. The keys are those of the policy in force.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Gate, ResolveError,
    quorum::{decide_now, waited},
};
use crate::{
    digest::Digest,
    hold::{Assurance, BadProof, Context, NewHold, Proof, Quorum, Requirement, Statement, Verdict, Vote},
    jsonrpc::Frame,
    policy::{People, Person, Policy},
    principal::{CHANNEL_KINDS, ELICITATION, key_identity},
};

/// Why an approval that is on record lets no call run.
pub(super) const NOT_PROVEN: &str = "the rules want signed approvals, and those on record do not prove that enough people approved this very call";

/// What the rules want to be proven of an approval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    signed: bool,
    least: Assurance,
}

impl Wanted {
    /// What all of `requirements` want.
    pub(super) fn by<'r>(requirements: impl IntoIterator<Item = &'r Requirement>) -> Self {
        requirements.into_iter().fold(Self::default(), |all, one| Self {
            signed: all.signed || one.signed,
            least: all.least.max(one.min_assurance),
        })
    }

    pub(super) fn is_any(self) -> bool {
        self != Self::default()
    }

    pub(super) fn is_met(self, is_signed: bool, level: Assurance) -> bool {
        (is_signed || !self.signed) && level >= self.least
    }

    /// What whoever has given too little is told.
    pub(super) fn refusal(self) -> ResolveError {
        ResolveError::NotSigned { signed: self.signed, needed: self.least }
    }
}

/// What a signature has to be about.
#[derive(Clone, Copy)]
enum About<'a> {
    /// The call as it is shown, to the byte.
    Held(&'a NewHold),
    /// The call that was approved as this hold and is about to be sent, with this digest of what it does.
    Sent(&'a NewHold, Digest),
}

impl Gate {
    /// How far `vote` can be trusted. One with a proof is refused unless that is whole and about `hold` as it is shown.
    pub(super) fn assurance_of(
        &self,
        policy: &Policy,
        hold: &NewHold,
        vote: &Vote,
    ) -> Result<Assurance, ResolveError> {
        match &vote.proof {
            None => Ok(self.assurance_unsigned(vote)),
            Some(proof) => Ok(self.signed(policy.people(), About::Held(hold), vote, proof)?.1),
        }
    }

    /// A channel's word is worth least, wherever the gate is.
    fn assurance_unsigned(&self, vote: &Vote) -> Assurance {
        let kind = vote.by.split(':').next().unwrap_or_default();
        if CHANNEL_KINDS.contains(&kind) || kind == ELICITATION {
            Assurance::L0
        } else {
            self.deployed.of_user()
        }
    }

    /// How long grants live here by the policy in force, whatever the record says.
    fn grant_in_force(&self, hold: &NewHold) -> Duration {
        let policy = self.policy();
        let of_rules = decide_now(&policy, hold, None).and_then(|decision| decision.terms?.grant);
        let usual = policy.waiting().grant;
        of_rules.or(usual).unwrap_or_else(|| Duration::from_secs(self.grant_seconds.into()))
    }

    /// Who has signed `vote`, if the policy knows them, and how far that can be trusted.
    fn signed<'p>(
        &self,
        people: &'p People,
        about: About<'_>,
        vote: &Vote,
        proof: &Proof,
    ) -> Result<(Option<&'p Person>, Assurance), BadProof> {
        let (statement, key) = proof.verified()?;
        let now = Timestamp::now();
        let (hold, until) = match about {
            About::Held(hold) => (hold, statement.expires),
            // A grant outlives its hold, for as long as grants live here: what the record says of that is not believed.
            About::Sent(hold, _) => {
                let longer = self.grant_in_force(hold);
                (hold, statement.expires.checked_add(longer).unwrap_or(statement.expires))
            }
        };
        if now >= until {
            return Err(BadProof::Expired);
        }
        let comment = vote.comment.as_deref();
        let context = Context::of(hold);
        let expected = match about {
            About::Held(hold) => {
                let frame = Frame::from_client(hold.frame.clone()).map_err(|_| BadProof::Unreadable)?;
                let expected =
                    Statement::about(hold.id, &frame, &context, hold.expires_at, vote.verdict, comment);
                expected.ok_or(BadProof::Unreadable)?
            }
            // How the call was written and shown, and until when it could be decided, was compared when it was approved.
            About::Sent(hold, call) => Statement {
                request: hold.id,
                call,
                context: context.digest(),
                verdict: vote.verdict,
                reason: Digest::of(comment.unwrap_or_default().as_bytes()),
                ..statement.clone()
            },
        };
        statement.agrees_with(&expected)?;
        let person = people.behind(&key_identity(&key.fingerprint()));
        Ok((person, self.deployed.of_key(&key)))
    }

    /// Whether `vote`, which is on record, gives what is wanted of it, for the hold as it waits now. Whoever has signed an earlier
    /// writing of the same call has approved this one too.
    pub(super) fn gives(&self, policy: &Policy, hold: &NewHold, wanted: Wanted, vote: &Vote) -> bool {
        if !wanted.is_any() || vote.verdict == Verdict::Reject {
            return true;
        }
        let Some(call) = hold.call_sha256 else { return false };
        self.prover(policy.people(), About::Sent(hold, call), wanted, vote).is_some()
    }

    /// The human who proves to have said `vote`, if it gives what is wanted.
    fn prover<'p>(
        &self,
        people: &'p People,
        about: About<'_>,
        wanted: Wanted,
        vote: &Vote,
    ) -> Option<&'p Person> {
        match &vote.proof {
            Some(proof) => {
                let (person, level) = self.signed(people, about, vote, proof).ok()?;
                person.filter(|_| wanted.is_met(true, level))
            }
            None => {
                let level = self.assurance_unsigned(vote).min(vote.assurance.unwrap_or_default());
                let person = people.named(vote.person.as_deref()?)?;
                wanted.is_met(false, level).then_some(person)
            }
        }
    }

    /// Whether `votes` prove what the rules want, for a call that is about to be sent: those that have held it, those that hold it
    /// now (`terms`), and those of the policy in force. `call` is the digest of what is sent.
    pub(super) fn is_proven(
        &self,
        hold: &NewHold,
        terms: Option<&Quorum>,
        votes: &[Vote],
        call: Option<Digest>,
    ) -> bool {
        let policy = self.policy();
        let requirements = self.wanting(&policy, hold, terms);
        if requirements.is_empty() {
            return true;
        }
        let Some(call) = call else { return false };
        let people = policy.people();
        let owner = people.owner(&hold.principal).map(|owner| &owner.name);
        let longest = votes.iter().map(|vote| waited(hold, vote.at)).max().unwrap_or(Duration::ZERO);
        requirements.iter().all(|requirement| {
            let wanted = Wanted::by([requirement]);
            let approvals = votes.iter().filter(|vote| vote.verdict == Verdict::Approve);
            let mut proven: Vec<&Person> = approvals
                .filter_map(|vote| self.prover(people, About::Sent(hold, call), wanted, vote))
                .filter(|person| Some(&person.name) != owner)
                .collect();
            proven.sort_unstable_by_key(|person| &person.name);
            proven.dedup_by_key(|person| &person.name);
            let is = |person: &&Person, name: &str| people.is(person, name);
            requirement.is_filled(&proven, longest, &is)
        })
    }

    /// Whether anything has to be proven before the call of `hold` is sent.
    pub(super) fn wants_proof(&self, hold: &NewHold, terms: Option<&Quorum>) -> bool {
        !self.wanting(&self.policy(), hold, terms).is_empty()
    }

    /// The requirements of which something has to be proven.
    fn wanting(&self, policy: &Policy, hold: &NewHold, terms: Option<&Quorum>) -> Vec<Requirement> {
        let then = hold.quorum.as_deref().into_iter().chain(terms).flat_map(|quorum| &quorum.requirements);
        let mut wanting: Vec<Requirement> = then.filter(|one| one.wants_proof()).cloned().collect();
        if policy.wants_proof() {
            let now = decide_now(policy, hold, None).and_then(|decision| decision.terms);
            let now = now.iter().flat_map(|terms| &terms.requirements);
            wanting.extend(now.filter(|one| one.wants_proof()).cloned());
        }
        wanting
    }
}
