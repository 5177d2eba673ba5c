//! The people behind the identities: who is one and the same human, of which role, and whose agent asks.
//!
//! Read by `document`, asked by the gate when somebody says yes or no. Without `people:` there are none, and whoever may use
//! the control socket decides, as the only approver there is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use crate::{
    hold::{Assurance, Requirement},
    principal::key_identity,
    sshsig::{KEY_BYTES_MAX, PublicKey},
};

use super::{
    diagnostic::{Diagnostic, Source, did_you_mean},
    document::{Draft, NAME_CHARS_MAX, Reader},
    yaml::Node,
};

/// The most people of one policy.
pub(super) const PEOPLE_MAX: usize = 10_000;
/// The most teams of one policy, and the most members of a team.
pub(super) const TEAMS_MAX: usize = 1_000;
/// The most keys of one person.
const KEYS_MAX: usize = 20;
/// The most roles, identities or agents of one person.
pub(super) const WORDS_MAX: usize = 50;

pub(super) const PERSON_KEYS: [&str; 4] = ["roles", "identities", "ssh_keys", "agents"];

/// A human.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name in policies, in votes and in the record.
    pub name: Arc<str>,
    roles: BTreeSet<String>,
    identities: Vec<String>,
    agents: Vec<String>,
    keys: Vec<PublicKey>,
}

impl Person {
    /// The keys with which they sign.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }
}

/// All humans that a policy knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People {
    people: Vec<Person>,
    teams: BTreeMap<String, BTreeSet<String>>,
    by_identity: HashMap<String, usize>,
    by_agent: HashMap<String, usize>,
}

impl People {
    /// Whether the policy says nothing of people.
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.people.len()
    }

    /// The human behind an identity such as `uid:alice` or `email:alice@example.com`.
    pub fn behind(&self, identity: &str) -> Option<&Person> {
        self.by_identity.get(identity).and_then(|&at| self.people.get(at))
    }

    /// The human of this name.
    pub fn named(&self, name: &str) -> Option<&Person> {
        self.people.iter().find(|person| &*person.name == name)
    }

    /// The human whose agent this principal is: by their `agents`, or because it runs as their user.
    pub fn owner(&self, principal: &str) -> Option<&Person> {
        let listed = self.by_agent.get(principal).and_then(|&at| self.people.get(at));
        listed.or_else(|| self.behind(principal)).or_else(|| {
            let user = principal.strip_prefix("client-of:")?;
            self.behind(&format!("uid:{user}"))
        })
    }

    /// Whether `person` is a role, a team or a person by this name.
    pub fn is(&self, person: &Person, name: &str) -> bool {
        &*person.name == name
            || person.roles.contains(name)
            || self.teams.get(name).is_some_and(|team| team.contains(&*person.name))
    }

    /// Whether enough people could ever say yes.
    pub(super) fn can_fill(&self, requirement: &Requirement) -> bool {
        let everyone: Vec<&Person> = self.people.iter().collect();
        requirement.is_filled(&everyone, Duration::MAX, &|person, name| self.is(person, name))
    }

    /// Whether enough people have keys with which they could prove what it wants, at a gate that is deployed as well as any.
    fn can_prove(&self, requirement: &Requirement, is_key: &dyn Fn(&PublicKey) -> bool) -> bool {
        let able: Vec<&Person> = self.people.iter().filter(|person| person.keys.iter().any(is_key)).collect();
        requirement.is_filled(&able, Duration::MAX, &|person, name| self.is(person, name))
    }

    /// The names that mean somebody.
    fn names(&self) -> BTreeSet<&str> {
        let people = self
            .people
            .iter()
            .flat_map(|person| person.roles.iter().map(String::as_str).chain(std::iter::once(&*person.name)));
        people.chain(self.teams.keys().map(String::as_str)).collect()
    }
}

/// A person or a team as it was written.
pub(super) struct Written<T> {
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
    pub(super) value: T,
}

/// A team's name and members.
pub(super) type Team = (String, Vec<String>);

impl Reader<'_> {
    /// `people:`.
    pub(super) fn people(&mut self, node: &Node) -> Vec<Written<Person>> {
        let mut people = Vec::new();
        for (name, key, value) in self.entries(node, "people", PEOPLE_MAX) {
            let Some(mut keys) = self.mapping(value, "a person", &PERSON_KEYS) else { continue };
            let mut words = |key: &'static str| {
                keys.take(key).map_or_else(Vec::new, |node| self.words(node, key, WORDS_MAX))
            };
            let (roles, mut identities, agents) = (words("roles"), words("identities"), words("agents"));
            let written = keys.take("ssh_keys").map_or_else(Vec::new, |node| self.keys(node));
            if identities.is_empty() && written.is_empty() {
                let hint = "write for example `identities: [\"uid:alice\", \"email:alice@example.com\"]`";
                let message = format!(
                    "nobody could tell that it is `{name}` who approves: no `identities` and no `ssh_keys`"
                );
                self.fail("P0502", key.span.clone(), message, hint);
            }
            for odd in identities.iter().filter(|identity| !is_identity(identity)) {
                let hint =
                    "write where somebody is known and by what: `uid:alice`, `slack:U012AB3CD`, `email:…`";
                self.fail("P0502", key.span.clone(), format!("`{odd}` is not an identity"), hint);
            }
            identities.extend(written.iter().map(|key| key_identity(&key.fingerprint())));
            let roles = roles.into_iter().collect();
            let person = Person { name: name.into(), roles, identities, agents, keys: written };
            people.push(Written { source: Arc::clone(self.source), span: key.span.clone(), value: person });
        }
        people
    }

    /// `ssh_keys:`, each as a line of a `.pub` file.
    fn keys(&mut self, node: &Node) -> Vec<PublicKey> {
        let mut keys = Vec::new();
        for item in self.items(node, "ssh_keys", KEYS_MAX) {
            let Some(line) = self.line(item, "ssh_keys", KEY_BYTES_MAX) else { continue };
            match PublicKey::parse(&line) {
                Ok(key) => keys.push(key),
                Err(error) => {
                    let hint = "write the line of the `.pub` file: \"ssh-ed25519 AAAA… alice@example.com\"";
                    self.fail("P0508", item.span.clone(), format!("this is no key: {error}"), hint);
                }
            }
        }
        keys
    }

    /// `teams:`.
    pub(super) fn teams(&mut self, node: &Node) -> Vec<Written<Team>> {
        let mut teams = Vec::new();
        for (name, key, value) in self.entries(node, "teams", TEAMS_MAX) {
            let members = self.words(value, "team", TEAMS_MAX);
            let value = (name.to_owned(), members);
            teams.push(Written { source: Arc::clone(self.source), span: key.span.clone(), value });
        }
        teams
    }

    /// A list of names, each a line; an empty one is a mistake.
    pub(super) fn words(&mut self, node: &Node, key: &str, most: usize) -> Vec<String> {
        let items = self.items(node, key, most);
        items.iter().filter_map(|item| self.line(item, key, NAME_CHARS_MAX)).collect()
    }
}

fn is_identity(text: &str) -> bool {
    text.split_once(':').is_some_and(|(kind, name)| {
        !kind.is_empty() && !name.is_empty() && !text.contains(char::is_whitespace)
    })
}

/// The people of all files, checked against each other and against what the rules ask for.
pub(super) fn assemble(
    people: Vec<Written<Person>>,
    teams: Vec<Written<Team>>,
    drafts: &[Draft],
    problems: &mut Vec<Diagnostic>,
) -> People {
    let mut all = People::default();
    let mut fail = |written: (&Arc<Source>, &Range<usize>), code, message: String, hint: &str| {
        problems.push(Diagnostic::error(code, written.0, written.1.clone(), message).hint(hint.to_owned()));
    };
    for written in people {
        let (place, person) = ((&written.source, &written.span), written.value);
        if all.people.iter().any(|other| other.name == person.name) {
            fail(place, "P0502", format!("`{}` is there twice", person.name), "write each person once");
            continue;
        }
        let at = all.people.len();
        let lists = [(&person.identities, &mut all.by_identity), (&person.agents, &mut all.by_agent)];
        for (words, known) in lists {
            for word in words {
                if known.insert(word.clone(), at).is_some() {
                    let hint = "one identity is one human: that is what makes it one vote";
                    fail(place, "P0502", format!("`{word}` belongs to two people"), hint);
                }
            }
        }
        all.people.push(person);
    }
    let known: BTreeSet<String> = all.people.iter().map(|person| person.name.to_string()).collect();
    let roles: BTreeSet<String> = all.people.iter().flat_map(|person| person.roles.clone()).collect();
    if let Some(both) = known.intersection(&roles).next()
        && let Some(draft) = drafts.first()
    {
        let hint = "give the role another name, or nobody could tell whom a rule means";
        fail((&draft.source, &(0..0)), "P0504", format!("`{both}` is a person and a role"), hint);
    }
    for written in teams {
        let (place, (name, members)) = ((&written.source, &written.span), written.value);
        if known.contains(&name) || roles.contains(&name) || all.teams.contains_key(&name) {
            let hint = "give the team another name, or nobody could tell whom a rule means";
            fail(place, "P0504", format!("`{name}` is the name of something else too"), hint);
        }
        for member in members.iter().filter(|member| !known.contains(*member)) {
            let meant = did_you_mean(member, known.iter().map(String::as_str));
            let hint = meant.map_or_else(
                || "write them under `people:` first".to_owned(),
                |meant| format!("did you mean `{meant}`?"),
            );
            fail(place, "P0502", format!("`people` has no `{member}`"), &hint);
        }
        all.teams.insert(name, members.into_iter().collect());
    }
    check(&all, drafts, problems);
    all
}

/// What the rules ask for that nobody can give.
fn check(people: &People, drafts: &[Draft], problems: &mut Vec<Diagnostic>) {
    let names = people.names();
    for draft in drafts {
        let Some(requirement) = draft.terms.requirements.first() else { continue };
        let (source, span) = (&draft.source, draft.approvers_span.clone());
        if people.is_empty() {
            let message =
                format!("nobody can approve what `{}` holds: it asks for {requirement}", draft.name);
            let hint = "say who they are under `people:`, here or in another file of this policy";
            problems.push(Diagnostic::warning("P0503", source, span, message).hint(hint.to_owned()));
            continue;
        }
        let asked = requirement.seats.iter().flat_map(|seat| &seat.approvers);
        let asked = asked.chain(requirement.steps.iter().flat_map(|step| &step.to));
        let unknown: Vec<&str> = asked.map(|name| &**name).filter(|name| !names.contains(name)).collect();
        if let Some(unknown) = unknown.first() {
            let hint = did_you_mean(unknown, names.iter().copied()).map_or_else(
                || "give somebody this role under `people:`".to_owned(),
                |meant| format!("did you mean `{meant}`?"),
            );
            let message = format!("`{unknown}` is nobody: no person, no role, no team");
            problems.push(Diagnostic::error("P0501", source, span, message).hint(hint));
        } else if !people.can_fill(requirement) {
            let message = format!("there are not enough people for what this asks for: {requirement}");
            let hint = "ask for fewer, or give more people the role: one person fills one place";
            problems.push(Diagnostic::error("P0503", source, span, message).hint(hint.to_owned()));
        } else if (requirement.signed || requirement.min_assurance.needs_key())
            && !people.can_prove(requirement, &|_| true)
        {
            let message =
                format!("there are not enough people with `ssh_keys` for what this asks for: {requirement}");
            let hint = "add the line of each approver's `.pub` file to `ssh_keys` under `people:`";
            problems.push(Diagnostic::error("P0509", source, span, message).hint(hint.to_owned()));
        } else if requirement.min_assurance > Assurance::L0
            && !people.can_prove(requirement, &PublicKey::is_hardware)
        {
            let level = requirement.min_assurance;
            let message =
                format!("`run` can never reach {level} here: not enough approvers have a security key");
            let hint = "add keys of the kinds sk-ssh-ed25519 or sk-ecdsa-*; only a gate whose configuration says \
                        `assurance: L2` or more can do without";
            problems.push(Diagnostic::warning("P0510", source, span, message).hint(hint.to_owned()));
        } else if requirement.min_assurance > Assurance::L1 {
            let level = requirement.min_assurance;
            let message = format!("a gate on the agent's own account never reaches {level}");
            let hint = "it takes `serve` with `assurance:` in its configuration; `run` reaches L1 with a security key";
            problems.push(Diagnostic::warning("P0510", source, span, message).hint(hint.to_owned()));
        }
    }
}
