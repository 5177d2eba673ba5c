//! `holdshort run`: puts a gate in front of one server, which is started here and speaks stdio, or is reached over HTTP.
//!
//! Composes policy, store, gate, control socket and transport, in the order in which a failure costs least: nothing is
//! started before the policy is known to be good.

use std::{collections::HashMap, env::VarError, ffi::OsString, sync::Arc};

use anyhow::anyhow;
use http::{HeaderName, HeaderValue};

use super::{
    RunArguments,
    process::{GateProcess, be_private, load_policy},
    render,
};
use crate::{
    control::lineage::ClientProcess,
    exit::Exit,
    gate::Caller,
    hold::Assurance,
    policy::Policy,
    principal::Principal,
    store::Location,
    transport::{
        http::{
            remote,
            settings::{OAuth, Target, UpstreamSettings},
        },
        session::SessionLimits,
        stdio::{self, Server},
    },
};

pub(super) fn run(arguments: RunArguments) -> Exit {
    be_private();
    let settings = match arguments.url.as_deref().map(|url| upstream(&arguments, url)).transpose() {
        Ok(settings) => settings,
        Err(error) => return render::usage(&error),
    };
    let policy = match load_policy(&arguments.policy, Assurance::L0) {
        Ok(policy) => policy,
        Err(exit) => return exit,
    };
    let store = match arguments.store.as_deref().map(Location::named).transpose() {
        Ok(store) => store,
        Err(error) => return render::usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return render::failed(&error),
    };
    let exit = match runtime.block_on(wrap(arguments, store, settings, policy)) {
        Ok(code) => Exit::Server(code),
        Err(error) => render::error_chain(&error),
    };
    // A thread may still be reading a stdin that never ends.
    runtime.shutdown_background();
    exit
}

/// What was said of a server on HTTP cannot be used. The words have no value of a variable in them, and no URL.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadServer(String);

/// The one server behind the gate.
enum Behind {
    /// Started here.
    Command(Server),
    /// On HTTP.
    Url(UpstreamSettings),
}

async fn wrap(
    arguments: RunArguments,
    store: Option<Location>,
    settings: Option<UpstreamSettings>,
    policy: Policy,
) -> anyhow::Result<u8> {
    let (name, behind): (Arc<str>, _) = match settings {
        Some(settings) => (Arc::clone(&settings.name), Behind::Url(settings)),
        None => {
            let (command, rest) =
                arguments.command.split_first().ok_or_else(|| anyhow!("there is no command to wrap"))?;
            let name = arguments.server.unwrap_or_else(|| server_name(&arguments.command));
            // Before all else: it takes longest to be ready.
            (name.into(), Behind::Command(Server::start(command, rest)?))
        }
    };
    let (client, servers) = (client(arguments.danger_client_decides), vec![Arc::clone(&name)]);
    let mut process =
        GateProcess::open(policy, arguments.policy, store, servers, Assurance::L0, client).await?;
    process.shown.listen(arguments.metrics).await?;
    let mut caller = Caller::new(&Principal::client(), name);
    caller.wait = arguments.wait;
    let (gate, limits) = (Arc::clone(&process.gate), SessionLimits::default());
    let ended = match behind {
        Behind::Command(server) => stdio::serve(server, gate, caller, limits).await.map(stdio::exit_code),
        Behind::Url(settings) => remote::serve(settings, gate, caller, limits).await.map(|()| 0),
    };
    process.close().await;
    Ok(ended?)
}

/// The server on HTTP that the arguments name.
fn upstream(arguments: &RunArguments, url: &str) -> Result<UpstreamSettings, BadServer> {
    let target = Target::parse(url, arguments.roots.as_deref())
        .map_err(|error| BadServer(format!("`--url` cannot be used: {error}")))?;
    let headers =
        arguments.header.iter().map(|header| header_from_environment(header)).collect::<Result<_, _>>()?;
    Ok(UpstreamSettings {
        name: arguments.server.as_deref().unwrap_or(&target.host).into(),
        path: String::new(),
        host: None,
        target,
        headers,
        headers_of: HashMap::new(),
        oauth: OAuth::Off,
        wait: arguments.wait,
    })
}

/// The process whose calls are held here, unless it may decide on them itself.
fn client(may_decide: bool) -> Option<ClientProcess> {
    if may_decide { None } else { ClientProcess::of_this_process() }
}

/// `NAME=VARIABLE`, as a header whose value stands in the environment: arguments can be seen by others.
fn header_from_environment(text: &str) -> Result<(HeaderName, HeaderValue), BadServer> {
    let bad = |why: String| BadServer(format!("`--header` cannot be used: {why}"));
    let (name, variable) = text
        .split_once('=')
        .ok_or_else(|| bad("write NAME=VARIABLE, such as authorization=BILLING_TOKEN".to_owned()))?;
    let name = HeaderName::try_from(name).map_err(|_| bad(format!("`{name}` is no header's name")))?;
    let value = std::env::var(variable).map_err(|error| match error {
        VarError::NotPresent => bad(format!("the variable `{variable}` is not set")),
        VarError::NotUnicode(_) => bad(format!("the value of `{variable}` is no text")),
    })?;
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| bad(format!("the value of `{variable}` is not one that a header can have")))?;
    value.set_sensitive(true);
    Ok((name, value))
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
