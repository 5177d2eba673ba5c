//! `holdshort policy`: what is wrong with a policy, whether it decides as its cases say, and why it decides so.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{ExplainArguments, PolicyCommand, channels, render};
use crate::{
    channels::settings,
    control::{
        api::ControlClient as _,
        client::{self, AskError, Reached},
    },
    exit::Exit,
    mcp::Annotations,
    policy::{self, Call, Policy},
};

/// What the name of a file of cases ends with.
const CASES_ENDING: &str = ".test.yaml";

/// The server of a call that names none, as in a file of cases.
const SERVER_DEFAULT: &str = "server";

pub(super) fn policy(command: &PolicyCommand) -> Exit {
    match command {
        PolicyCommand::Check { paths, config } => check(paths, config.as_deref()),
        PolicyCommand::Test { paths, cases } if cases.is_empty() => test_beside(paths),
        PolicyCommand::Test { paths, cases } => {
            test(cases.iter().map(|cases| (paths.clone(), cases.clone())).collect())
        }
        PolicyCommand::Explain(arguments) => explain(arguments),
        PolicyCommand::Convert { file } => convert(file),
        PolicyCommand::Diff { older, newer, cases, json } => diff(older, newer, cases, *json),
        PolicyCommand::Learn { policy, store, json } => learn(policy, store.as_deref(), *json),
        PolicyCommand::Reload => reload(),
        PolicyCommand::Schema => {
            render::line(policy::schema().trim_end());
            Exit::Done
        }
    }
}

/// Explains the decision on one call, which nobody sends.
fn explain(arguments: &ExplainArguments) -> Exit {
    let raw = arguments.args.as_deref().unwrap_or("{}");
    let loaded = policy::check_arguments(raw).and_then(|()| Policy::load(&arguments.policy));
    let policy = match loaded {
        Ok(policy) => policy,
        Err(errors) => return render::policy_errors(&errors),
    };
    render::policy::warnings(policy.warnings());
    let server = arguments.server.as_deref().unwrap_or(SERVER_DEFAULT);
    let method = arguments.method.as_deref().unwrap_or("tools/call");
    let mut annotations = Annotations::default();
    for hint in &arguments.hints {
        let (name, value) = hint.split_once('=').unwrap_or((hint, "true"));
        let known = value.parse().is_ok_and(|value| annotations.set(name, value));
        if !known {
            render::talk(
                "a hint is one of readOnlyHint, destructiveHint, idempotentHint and openWorldHint, with =true or =false",
            );
            return Exit::Usage;
        }
    }
    let explanation = policy.explain(&Call {
        server,
        method,
        tool: arguments.tool.as_deref(),
        arguments: raw,
        client: arguments.client.as_deref().unwrap_or_default(),
        principal: arguments.principal.as_deref().unwrap_or_default(),
        annotations,
        now: arguments.at.unwrap_or_else(jiff::Timestamp::now),
    });
    let subject = match &arguments.tool {
        Some(tool) => format!("{server}.{tool} {raw}"),
        None => format!("{method} {raw}"),
    };
    render::policy::explained(&explanation, &subject, arguments.json);
    let about_servers = policy
        .rules()
        .iter()
        .any(|rule| rule.servers().next().is_some() || rule.tools().any(|tool| tool.contains('.')));
    if arguments.server.is_none() && about_servers {
        render::talk(&format!(
            "judged as a call to a server called `{SERVER_DEFAULT}`: name yours with --server"
        ));
    }
    Exit::Done
}

/// Proposes a policy from the recorded calls, or tries one on them.
fn learn(paths: &[PathBuf], store: Option<&Path>, as_json: bool) -> Exit {
    let tried = match Some(paths).filter(|paths| !paths.is_empty()).map(Policy::load).transpose() {
        Ok(tried) => tried,
        Err(errors) => return render::policy_errors(&errors),
    };
    super::block_on(async {
        let calls = super::audit::recorded_calls(store).await?;
        if calls.is_empty() {
            render::talk(
                "no calls are on record that the mode `audit` has let run\nhint: write `mode: audit` into the policy of a gate",
            );
            return Ok(Exit::Failed);
        }
        if let Some(policy) = tried {
            render::policy::replayed(&policy::replay(&policy, &calls), as_json);
            return Ok(Exit::Done);
        }
        Ok(match policy::propose(&calls) {
            Ok(text) => {
                render::line(text.trim_end());
                Exit::Done
            }
            Err(errors) => render::policy_errors(&errors),
        })
    })
}

/// Has all gates read their policies again; a mistake in one of them is a failure.
fn reload() -> Exit {
    super::block_on(async {
        let Reached { gates, silent } = client::gates().await;
        if gates.is_empty() && silent.is_empty() {
            return Err(AskError::NoGate);
        }
        silent.iter().for_each(render::silent);
        let mut exit = if silent.is_empty() { Exit::Done } else { Exit::NoGate };
        for gate in gates {
            match gate.rpc.reload().await.map_err(AskError::from) {
                Ok(reloaded) => render::policy::reloaded(&gate.registered.instance, &reloaded),
                Err(AskError::Refused(refused)) => {
                    render::talk(refused.message());
                    exit = Exit::Usage;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(exit)
    })
}

/// Compares two policies; anything that may become wider is a failure.
fn diff(older: &Path, newer: &Path, cases: &[PathBuf], as_json: bool) -> Exit {
    match policy::diff(older, newer, cases) {
        Ok(difference) => {
            render::policy::difference(&difference, as_json);
            if difference.never_wider() { Exit::Done } else { Exit::Failed }
        }
        Err(errors) => render::policy_errors(&errors),
    }
}

/// Prints a policy in the native form.
fn convert(file: &Path) -> Exit {
    match policy::convert_file(file) {
        Ok(converted) => {
            render::policy::converted(&converted);
            Exit::Done
        }
        Err(errors) => render::policy_errors(&errors),
    }
}

fn check(paths: &[PathBuf], config: Option<&Path>) -> Exit {
    let policy = match Policy::load(paths) {
        Ok(policy) => policy,
        Err(errors) => return render::policy_errors(&errors),
    };
    render::policy::warnings(policy.warnings());
    if let Some(config) = channels::config_path(config) {
        match settings::names(&config) {
            Ok(known) => {
                for rule in policy.rules() {
                    if let Some(unknown) = rule.channels().find(|name| !known.contains(*name)) {
                        let (rule, config) = (rule.name(), config.display());
                        render::talk(&format!(
                            "error[P0508]: `{rule}` notifies the channel `{unknown}`, which {config} does not have"
                        ));
                        return Exit::Usage;
                    }
                }
            }
            Err(error) => return render::settings_errors(&error),
        }
    }
    render::policy::checked(&policy);
    Exit::Done
}

/// Tests each policy with the cases beside it: `payments.yaml` with `payments.test.yaml`.
fn test_beside(paths: &[PathBuf]) -> Exit {
    // Of a policy that is not there, nothing is said by what is not beside it.
    let missing: Vec<_> = paths.iter().filter(|path| !path.exists()).cloned().collect();
    if !missing.is_empty()
        && let Err(errors) = Policy::load(&missing)
    {
        return render::policy_errors(&errors);
    }
    let mut pairs = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
            let mut cases: Vec<_> = entries.map(|entry| entry.path()).filter(|path| is_cases(path)).collect();
            cases.sort();
            pairs.extend(cases.into_iter().map(|cases| (vec![tested_by(&cases)], cases)));
        } else {
            let cases = path.with_extension(CASES_ENDING.trim_start_matches('.'));
            if cases.exists() {
                pairs.push((vec![path.clone()], cases));
            }
        }
    }
    if pairs.is_empty() {
        render::talk("there is no *.test.yaml beside these policies\nhint: name one with --cases");
        return Exit::Usage;
    }
    test(pairs)
}

fn is_cases(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(CASES_ENDING))
}

/// The policy that the cases in `cases` are about.
fn tested_by(cases: &Path) -> PathBuf {
    let name = cases.file_name().unwrap_or_default().to_string_lossy();
    cases.with_file_name(format!("{}.yaml", name.trim_end_matches(CASES_ENDING)))
}

fn test(pairs: Vec<(Vec<PathBuf>, PathBuf)>) -> Exit {
    let mut exit = Exit::Done;
    for (policies, cases) in pairs {
        match policy::run_tests(&policies, &cases) {
            Ok(report) => {
                render::policy::tested(&report);
                if !report.passed() {
                    exit = Exit::Failed;
                }
            }
            Err(errors) => return render::policy_errors(&errors),
        }
    }
    exit
}
