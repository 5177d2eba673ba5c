//! `holdshort run`: puts a gate in front of one stdio server.
//!
//! Composes policy, store, gate, control socket and transport, in the order in which a failure costs least: nothing is
//! started before the policy is known to be good.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow};
use tokio::time::timeout;

use super::{RunArguments, render};
use crate::{
    audit::{AuditEvent, Occasion},
    control::{place, server as control},
    exit::Exit,
    gate::{Caller, Gate, GateLimits},
    hold::HoldId,
    policy::Policy,
    principal::Principal,
    store::Store,
    transport::{
        session::SessionLimits,
        stdio::{self, Server},
    },
};

/// The codes of warnings that say what was assumed in reading a policy of another form.
const ASSUMPTIONS: &str = "P04";

/// How long the end of the program waits for the record's last events.
const LAST_EVENTS: Duration = Duration::from_millis(200);

pub(super) fn run(arguments: RunArguments) -> Exit {
    let policy = match load_policy(&arguments.policy) {
        Ok(policy) => policy,
        Err(exit) => return exit,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return render::failed(&error),
    };
    let exit = match runtime.block_on(wrap(arguments, policy)) {
        Ok(code) => Exit::Server(code),
        Err(error) => render::error_chain(&error),
    };
    // A thread may still be reading a stdin that never ends.
    runtime.shutdown_background();
    exit
}

/// The policy that was named, or the usual one, or the one that holds everything.
fn load_policy(named: &[PathBuf]) -> Result<Policy, Exit> {
    let paths = if named.is_empty() { usual_policy() } else { named.to_vec() };
    if paths.is_empty() {
        render::talk(
            "no policy is given and none is in ~/.config/holdshort: every call is held until you approve it\n\
             hint: `holdshort holds` in another terminal shows what waits",
        );
        return Ok(Policy::hold_everything());
    }
    let policy = Policy::load(&paths).map_err(|errors| render::policy_errors(&errors))?;
    for assumed in policy.warnings().iter().filter(|warning| warning.code().starts_with(ASSUMPTIONS)) {
        tracing::warn!(code = assumed.code(), "{}", assumed.message());
    }
    tracing::info!(rules = policy.rules().len(), warnings = policy.warnings().len(), "policy loaded");
    Ok(policy)
}

fn usual_policy() -> Vec<PathBuf> {
    let Some(dir) = place::config_dir() else { return Vec::new() };
    [dir.join("policy.yaml"), dir.join("policy.d")].into_iter().filter(|path| path.exists()).collect()
}

async fn wrap(arguments: RunArguments, policy: Policy) -> anyhow::Result<u8> {
    let (command, rest) =
        arguments.command.split_first().ok_or_else(|| anyhow!("there is no command to wrap"))?;
    let name = arguments.server.unwrap_or_else(|| server_name(&arguments.command));
    // The server first: it takes longest to be ready.
    let server = Server::start(command, rest)?;
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);

    let path = arguments.store.map_or_else(place::default_store, Ok)?;
    let path = std::path::absolute(&path).context("the record's path cannot be used")?;
    let instance: Arc<str> = instance_name()?.into();
    place::clear_dead(&path);
    let liveness = show_life(&instance, &path);
    let store = Store::open(&path);
    let caller = Caller::new(&Principal::client(), name.into());
    let policy = Arc::new(policy);
    let gate = Gate::new(
        Arc::clone(&instance),
        Arc::clone(&policy),
        store.clone(),
        // What a gate holds that nobody sees live would be taken for a dead one's, and ended by others.
        GateLimits {
            holds_max: if liveness.is_some() { GateLimits::default().holds_max } else { 0 },
            ..GateLimits::default()
        },
    );
    let gate = Arc::new(gate);
    store.ride_along(AuditEvent {
        server: Some(caller.server.to_string()),
        policy_sha256: Some(policy.digest()),
        ..AuditEvent::new(Occasion::GateStarted, &instance, jiff::Timestamp::now())
    });
    let about =
        control::About { servers: vec![Arc::clone(&caller.server)], store: path.display().to_string() };
    let control = open_control(&gate, about, &instance);
    tokio::spawn(recover(store.clone(), path, Arc::clone(&instance), liveness.is_some()));
    let status = stdio::serve(server, gate, caller, SessionLimits::default()).await;
    drop(control);
    store.ride_along(AuditEvent::new(Occasion::GateStopped, &instance, jiff::Timestamp::now()));
    let _ = timeout(LAST_EVENTS, store.flush()).await;
    // Last: until here others must not end what this gate is still writing down.
    drop(liveness);
    Ok(stdio::exit_code(status?))
}

/// Shows to other gates on the same record that this one lives. Without that it holds nothing.
fn show_life(instance: &str, store: &Path) -> Option<place::Liveness> {
    place::show_life(instance, store)
        .map_err(anyhow::Error::from)
        .inspect_err(|error| {
            tracing::error!(
                error = format!("{error:#}"),
                "other gates cannot see that this one lives: every call that would be held is refused"
            );
        })
        .ok()
}

/// Serves operators. Without a control socket nobody can approve: what is held then expires, and stderr says why.
fn open_control(gate: &Arc<Gate>, about: control::About, instance: &str) -> Option<control::Control> {
    let control = place::register(instance)
        .map_err(anyhow::Error::from)
        .and_then(|registration| Ok(control::start(Arc::clone(gate), about, registration)?));
    control
        .inspect_err(|error| {
            tracing::error!(
                error = format!("{error:#}"),
                "no control socket: nobody can approve what is held"
            );
        })
        .ok()
}

/// Puts on record what became of the calls of gates that have died, if it `can_tell` which ones have.
async fn recover(store: Store, path: PathBuf, own: Arc<str>, can_tell: bool) {
    if let Err(error) = store.ready().await {
        tracing::error!(%error, "the record cannot be used: every call that would be held is refused");
        return;
    }
    if !can_tell {
        return;
    }
    let Ok(owners) = store.owners_with_open_holds().await else { return };
    for owner in owners.iter().filter(|owner| ***owner != *own && place::is_dead(&path, owner)) {
        match store.recover(owner).await {
            Ok(recovered) => {
                tracing::warn!(
                    gate = &**owner,
                    withdrawn = recovered.withdrawn.len(),
                    unknown = recovered.unknown.len(),
                    "calls of a gate that has died were put on record"
                );
            }
            Err(error) => {
                tracing::error!(gate = &**owner, %error, "calls of a dead gate could not be put on record")
            }
        }
    }
}

/// 128 random bits: the name of this process in the record.
fn instance_name() -> anyhow::Result<String> {
    Ok(HoldId::random().context("the system gives no random numbers")?.to_string())
}

/// The server's name, from its command: `server-github` for `npx -y @modelcontextprotocol/server-github`.
///
/// Launchers (`npx`, `uvx`, `docker run`, `python -m`, `node`…) are looked through: the name is that of what they launch.
fn server_name(command: &[OsString]) -> String {
    const LAUNCHERS: [&str; 16] = [
        "npx", "npm", "pnpm", "yarn", "bunx", "bun", "uvx", "uv", "pipx", "docker", "podman", "node", "deno",
        "env", "exec", "run",
    ];
    let is_launcher = |name: &str| {
        LAUNCHERS.contains(&name)
            || name.strip_prefix("python").is_some_and(|rest| !rest.contains(char::is_alphabetic))
    };
    let words = command.iter().map(|word| word.to_string_lossy());
    let named =
        words.filter(|word| !word.starts_with('-') && !word.contains('=')).map(|word| base_name(&word));
    let mut first = None;
    for name in named {
        if !name.is_empty() && !is_launcher(&name) {
            return name;
        }
        first.get_or_insert(name);
    }
    first.filter(|name| !name.is_empty()).unwrap_or_else(|| "server".to_owned())
}

/// The last part of a path, a package or an image, without version, tag and extension.
fn base_name(word: &str) -> String {
    let last = word.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or(word);
    let unversioned = match last.char_indices().skip(1).find(|(_, letter)| matches!(letter, '@' | ':')) {
        Some((position, _)) => &last[..position],
        None => last,
    };
    let stem = [".js", ".mjs", ".cjs", ".ts", ".py", ".exe", ".sh"]
        .iter()
        .find_map(|extension| unversioned.strip_suffix(extension))
        .unwrap_or(unversioned);
    stem.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_after_what_is_launched() {
        for (command, name) in [
            ("npx -y @modelcontextprotocol/server-github", "server-github"),
            ("npx -y @modelcontextprotocol/server-filesystem@2025.8.21 /srv", "server-filesystem"),
            ("uvx mcp-server-git --repository /srv", "mcp-server-git"),
            ("python3.11 -m mcp_server_time", "mcp_server_time"),
            ("docker run -i --rm mcp/github:latest", "github"),
            ("node /opt/billing/server.js", "server"),
            ("/usr/local/bin/billing --port 3", "billing"),
            ("env TOKEN=x billing", "billing"),
            ("node", "node"),
        ] {
            let command: Vec<OsString> = command.split(' ').map(Into::into).collect();
            assert_eq!(server_name(&command), name, "{command:?}");
        }
    }
}
