//! The policies in force at the gates that run: their rules, their digests, and what is doubtful in them.
//!
//! Called by the routes. Shows what the gates say of their policies, each policy once; it changes nothing.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State as Extracted, response::Response};
use futures_util::future::join_all;
use jiff::Timestamp;

use super::{
    State,
    assets::{Assets, assets},
    guard::SignedIn,
    pages::{self, PageProblem},
    sessions::INFO,
};
use crate::{
    control::{
        api::ControlClient,
        policies::{PolicyView, RuleView},
    },
    view::{
        between,
        markup::{self, Row},
    },
};

/// Rules of one policy on the page.
const RULES_MAX: usize = 500;

#[derive(Template)]
#[template(path = "policy.html")]
struct PolicyPage {
    assets: &'static Assets,
    csrf: String,
    policies: Vec<PolicyCard>,
}

/// A policy, as the template says it.
struct PolicyCard {
    sha256: String,
    mode: String,
    default: String,
    people: usize,
    warnings: Vec<Row>,
    rules: Vec<RuleCard>,
    left_out: usize,
}

/// A rule, as the template says it.
struct RuleCard {
    name: Row,
    action: String,
    about: Row,
    when: Option<Row>,
    reason: Row,
    requirements: Vec<Row>,
    timeout: Option<String>,
    place: Row,
}

impl PolicyCard {
    fn new(policy: &PolicyView) -> Self {
        Self {
            sha256: policy.sha256.clone(),
            mode: policy.mode.clone(),
            default: policy.default.to_string(),
            people: policy.people,
            warnings: policy.warnings.iter().map(|warning| markup::text(warning)).collect(),
            rules: policy.rules.iter().take(RULES_MAX).map(RuleCard::new).collect(),
            left_out: policy.rules.len().saturating_sub(RULES_MAX),
        }
    }
}

impl RuleCard {
    fn new(rule: &RuleView) -> Self {
        let lists = [("", &rule.tools), ("server ", &rule.servers), ("method ", &rule.methods)];
        let said = lists.iter().filter(|(_, list)| !list.is_empty());
        let about: Vec<String> = said.map(|(word, list)| format!("{word}{}", list.join(", "))).collect();
        let about = if about.is_empty() { "every tool".to_owned() } else { about.join("; ") };
        let after = |seconds| {
            let end = Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX));
            between(Timestamp::UNIX_EPOCH, end.unwrap_or(Timestamp::MAX))
        };
        Self {
            name: markup::text(&rule.name),
            action: rule.action.to_string(),
            about: markup::text(&about),
            when: rule.when.as_deref().map(markup::text),
            reason: markup::text(&rule.reason),
            requirements: rule.requirements.iter().map(|text| markup::text(text)).collect(),
            timeout: rule.timeout_seconds.map(after),
            place: markup::text(&rule.place),
        }
    }
}

/// The page.
pub(super) async fn page(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
) -> Result<Response, PageProblem> {
    let gates = state.hub.gates();
    let asked = gates.iter().map(|gate| tokio::time::timeout(INFO, gate.rpc.policy()));
    let mut told: Vec<PolicyView> =
        join_all(asked).await.into_iter().filter_map(|answer| answer.ok()?.ok()).collect();
    told.sort_by(|one, other| one.sha256.cmp(&other.sha256));
    told.dedup_by(|one, other| one.sha256 == other.sha256);
    let policies = told.iter().map(PolicyCard::new).collect();
    pages::page(&PolicyPage { assets: assets(), csrf: session.csrf, policies })
}
