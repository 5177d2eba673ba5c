//! `holdshort doctor`: how far decisions at this set-up can be trusted, why, and whether what they rest on is in order.
//!
//! Looks at what `run`, or `serve` with a configuration, would use: the policy, the record, the gates that run, the channels. Changes
//! nothing, and asks nothing of other machines.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    DoctorArguments,
    audit::{Record, store_path},
    block_on, channels,
    process::policy_files,
    render,
};
use crate::{
    config::Config,
    control::{
        api::{ControlClient, GateInfo},
        client, place,
    },
    exit::Exit,
    hold::Assurance,
    policy::{Diagnostic, Policy},
    reachable,
    view::counted,
};

/// How far a clock may be behind the record: others on the record may be ahead a little.
const CLOCK_BEHIND_MAX: SignedDuration = SignedDuration::from_secs(5);

/// What was looked at, and found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// How far decisions here can be trusted at most.
    pub(super) assurance: Assurance,
    /// Why not less, and why not more.
    pub(super) because: Vec<String>,
    pub(super) checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) what: &'static str,
    pub(super) found: Found,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Found {
    Ok,
    Warning,
    Problem,
}

impl Report {
    fn add(&mut self, what: &'static str, found: Found, text: impl Into<String>) {
        self.checks.push(Check { what, found, text: text.into() });
    }

    fn has_problem(&self) -> bool {
        self.checks.iter().any(|check| check.found == Found::Problem)
    }
}

/// What would be used.
struct Setup {
    policy: Vec<PathBuf>,
    store: Option<PathBuf>,
    /// The level that the configuration of `serve` states; none for `run`.
    stated: Option<Assurance>,
}

pub(super) fn doctor(arguments: &DoctorArguments) -> Exit {
    let setup = match &arguments.config {
        None => Setup { policy: arguments.policy.clone(), store: arguments.store.clone(), stated: None },
        Some(path) => match Config::load(path) {
            Ok(config) => {
                Setup { policy: config.policy, store: config.store, stated: Some(config.assurance) }
            }
            Err(error) => return render::config_errors(&error),
        },
    };
    block_on(async {
        let mut report = Report { assurance: Assurance::L0, because: Vec::new(), checks: Vec::new() };
        let policy = look_at_policy(&setup, arguments.config.as_deref(), &mut report);
        look_at_state(&mut report);
        look_at_record(setup.store.as_deref(), &mut report).await;
        look_at_gates(policy.as_ref(), &mut report).await;
        look_at_channels(&mut report);
        judge(&setup, policy.as_ref(), &mut report);
        render::doctor::report(&report, arguments.json);
        Ok(if report.has_problem() { Exit::Failed } else { Exit::Done })
    })
}

/// The level, and why it is that.
fn judge(setup: &Setup, policy: Option<&Policy>, report: &mut Report) {
    let can_be_changed = report.checks.iter().any(|check| {
        check.found == Found::Problem && matches!(check.what, "policy" | "state" | "record" | "configuration")
    });
    let stated = setup.stated.unwrap_or_default();
    let mut because = Vec::new();
    if stated >= Assurance::L2 && !can_be_changed {
        report.assurance = stated;
        because.push(format!("the configuration says {stated}, agents have to show who they are, and no other user can change what the gate goes by"));
        because.push("that agents do not run as this very user, and cannot reach the servers otherwise, nobody can check from here".to_owned());
    } else {
        because.push(match setup.stated {
            None => "`run` is a process of the same user as the agent: an agent that can run commands can go around it".to_owned(),
            Some(Assurance::L0 | Assurance::L1) => "the configuration does not say that agents cannot reach this gate (`assurance`)".to_owned(),
            Some(stated) => format!("the configuration says {stated}, which what was found below contradicts"),
        });
        if policy.is_some_and(Policy::is_attested) {
            report.assurance = Assurance::L1;
            because
                .push("every rule that holds wants the touch of a listed person's security key".to_owned());
        } else {
            because.push("with `min_assurance: L1` in every rule that holds, and another `default` than `hold`, decisions would be L1 (docs/identity.md)".to_owned());
        }
    }
    if let Some(policy) = policy {
        let (wanted, reach) = (policy.min_assurance(), report.assurance.max(Assurance::L1));
        if wanted > reach {
            let text = format!(
                "a rule wants {wanted}, and this set-up reaches {reach}: nobody can approve what it holds"
            );
            report.add("policy", Found::Problem, text);
        }
        if policy.wants_proof() && !openssh_is_there() {
            report.add(
                "signatures",
                Found::Problem,
                "the policy wants signatures, and `ssh-keygen` is not on the PATH",
            );
        }
    }
    report.because = because;
}

fn openssh_is_there() -> bool {
    let mut command = Command::new("ssh-keygen");
    // Without arguments that it knows it says how it is used, and ends.
    command.arg("-?").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

/// The policy's files: whether others can change them, and what is wrong in them.
fn look_at_policy(setup: &Setup, config: Option<&Path>, report: &mut Report) -> Option<Policy> {
    if let Some(why) = config.and_then(reachable::by_others) {
        report.add("configuration", Found::Problem, why);
    }
    let paths = policy_files(&setup.policy);
    if paths.is_empty() {
        report.add("policy", Found::Warning, "there is none: every call is held");
        return Some(Policy::hold_everything());
    }
    for file in reachable::with_entries(&paths) {
        if let Some(why) = reachable::by_others(&file) {
            report.add("policy", Found::Problem, why);
        }
    }
    match Policy::load(&paths) {
        Ok(policy) => {
            for warning in policy.warnings() {
                report.add("policy", Found::Warning, placed(warning));
            }
            let rules = counted(policy.rules().len(), "rule");
            report.add("policy", Found::Ok, format!("{rules}, mode {}", policy.mode().word()));
            Some(policy)
        }
        Err(errors) => {
            for error in errors.diagnostics() {
                report.add("policy", Found::Problem, placed(error));
            }
            None
        }
    }
}

/// What was found in a policy, and where.
fn placed(found: &Diagnostic) -> String {
    format!("{} {} ({}:{})", found.code(), found.message(), found.source_name(), found.position().0)
}

/// The directory of the record and of the registrations.
fn look_at_state(report: &mut Report) {
    let Some(dir) = place::state_dirs().into_iter().next() else {
        return report.add(
            "state",
            Found::Problem,
            "there is no home directory, so there is no place for the record",
        );
    };
    let name = dir.display();
    match (dir.exists(), place::check_private(&dir), reachable::by_others(&dir)) {
        (_, _, Some(why)) => report.add("state", Found::Problem, why),
        (false, ..) => report.add("state", Found::Ok, format!("`{name}` is made when the first gate starts")),
        (true, Err(error), _) => report.add("state", Found::Problem, error.to_string()),
        (true, Ok(()), None) => report.add("state", Found::Ok, format!("`{name}` is this user's alone")),
    }
}

/// The record: whether others can change it, whether it was altered, and whether the clock agrees with it.
async fn look_at_record(store: Option<&Path>, report: &mut Report) {
    let location = match store_path(store) {
        Ok(location) => location,
        Err(error) => return report.add("record", Found::Problem, error.to_string()),
    };
    if let Some(why) = location.file().and_then(reachable::by_others) {
        report.add("record", Found::Problem, why);
    }
    if !location.may_exist() {
        return report.add("record", Found::Ok, "there is none yet");
    }
    let record = match Record::find(store).await {
        Ok(record) => record,
        Err(error) => return report.add("record", Found::Problem, error.to_string()),
    };
    match record.source.verify(None).await {
        Ok(found) => match found.broken {
            None if found.events == 0 => report.add("record", Found::Warning, render::NO_EVENTS),
            None => report.add("record", Found::Ok, render::unaltered(&found)),
            Some(broken) => report.add("record", Found::Problem, format!("altered: {broken}")),
        },
        Err(error) => report.add("record", Found::Problem, error.to_string()),
    }
    match record.source.history(None, 1).await {
        Ok(newest) => {
            let last = newest.first().map(|hold| hold.ended_at.unwrap_or(hold.created_at));
            let ahead = last.filter(|last| last.duration_since(Timestamp::now()) > CLOCK_BEHIND_MAX);
            match ahead {
                Some(last) => report.add(
                    "clock",
                    Found::Problem,
                    format!(
                        "it is behind the record, which ends at {last}: times and expiries cannot be trusted"
                    ),
                ),
                None => report.add("clock", Found::Ok, "it is not behind the record"),
            }
        }
        Err(error) => report.add("record", Found::Problem, error.to_string()),
    }
}

/// The gates that run, what they are, and what dead ones have left.
async fn look_at_gates(policy: Option<&Policy>, report: &mut Report) {
    let live = place::live_gates();
    for registered in &live {
        let pid = registered.pid;
        if let Some(why) = reachable::by_others(&registered.socket) {
            report.add("gate", Found::Problem, why);
        }
        let info = match client::reach(registered.clone()).await {
            Ok(gate) => gate.rpc.info().await.map_err(client::AskError::from),
            Err(error) => Err(error),
        };
        match info {
            Ok(info) => look_at_gate(&info, policy, report),
            Err(error) => {
                report.add("gate", Found::Problem, format!("process {pid} does not answer: {error}"))
            }
        }
    }
    match place::dead_gates() {
        0 => {}
        dead => report.add(
            "gate",
            Found::Warning,
            format!("{dead} that died have left files, which the next gate removes"),
        ),
    }
    if live.is_empty() {
        report.add("gate", Found::Ok, "none is running");
    }
}

fn look_at_gate(info: &GateInfo, policy: Option<&Policy>, report: &mut Report) {
    let (pid, servers, level) = (info.pid, info.servers.join(", "), info.assurance);
    let own = env!("CARGO_PKG_VERSION");
    if info.version != own {
        let text =
            format!("process {pid} is version {} and this is {own}: signatures need the same", info.version);
        report.add("gate", Found::Warning, text);
    }
    if info.min_assurance > level.max(Assurance::L1) {
        let text = format!(
            "process {pid} ({servers}) is {level} and its policy wants {}: nobody can approve that",
            info.min_assurance
        );
        report.add("gate", Found::Problem, text);
    }
    if policy.is_none_or(|policy| policy.digest().to_string() != info.policy_sha256) {
        let rules = counted(info.rules, "rule");
        let text = format!(
            "process {pid} ({servers}) goes by another policy than was looked at ({rules}, sha256 {}): name its files with --policy",
            info.policy_sha256
        );
        report.add("gate", Found::Warning, text);
    }
    let waiting =
        if info.holds == 1 { "1 call waits".to_owned() } else { format!("{} calls wait", info.holds) };
    report.add("gate", Found::Ok, format!("process {pid} answers for {servers}: {level}, {waiting}"));
}

/// The channels of the desk.
fn look_at_channels(report: &mut Report) {
    let Some(path) = channels::config_path(None) else {
        return report.add("channels", Found::Ok, "none is configured");
    };
    if let Some(why) = reachable::by_others(&path) {
        report.add("channels", Found::Problem, why);
    }
    match channels::load(None) {
        Ok(channels) => {
            let count = channels.iter().count();
            report.add(
                "channels",
                Found::Ok,
                format!("{count} can be used; `holdshort channels test NAME` sends to one"),
            );
        }
        Err(error) => {
            let text = error.to_string();
            report.add("channels", Found::Problem, text.lines().next().unwrap_or_default());
        }
    }
}
