//! `holdshort serve`: a reverse proxy before MCP servers that speak HTTP.
//!
//! Composes configuration, policy, record, gate, control socket and listener. One thread accepts and hears signals; the workers have
//! threads of their own. SIGTERM and SIGINT end it in order: nothing new begins, calls that run end, calls that wait are withdrawn.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    certificates::Certificates,
    process::{GateProcess, be_private, load_policy},
    render,
};
use crate::{
    audit::{AuditEvent, Occasion},
    config::{Config, InForce, TelemetryAddress},
    control::place,
    digest::Digest,
    exit::Exit,
    gate::Gate,
    hold::Assurance,
    policy::Policy,
    reachable,
    store::Location,
    transport::http::{Proxy, listener::Workers},
};

/// Who reloads the policy when the process is told to reload.
const WHO_HANGUP: &str = "gate:sighup";

/// Threads that serve connections: as many as there are processors, and no more than this.
const WORKERS_MAX: usize = 32;

pub(super) fn serve(path: &Path) -> Exit {
    be_private();
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return render::config_errors(&error),
    };
    let policy = match load_policy(&config.policy, config.assurance) {
        Ok(policy) => policy,
        Err(exit) => return exit,
    };
    let store = match config.store.as_deref().map(Location::named).transpose() {
        Ok(store) => store,
        Err(error) => return render::usage(&error),
    };
    if let Some(error) = cannot_keep(&config, store.as_ref()) {
        return render::usage(&error);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return render::failed(&error),
    };
    match runtime.block_on(run(path, config, store, policy)) {
        Ok(()) => Exit::Done,
        Err(error) => render::error_chain(&error),
    }
}

/// A level of assurance that this process cannot keep.
#[derive(Debug, thiserror::Error)]
#[error("`assurance: {level}` cannot be kept: {why}; `holdshort doctor --config FILE` says more")]
struct CannotKeep {
    level: Assurance,
    why: String,
}

/// Whether others could change the record, although the configuration says that they cannot.
fn cannot_keep(config: &Config, store: Option<&Location>) -> Option<CannotKeep> {
    if config.assurance < Assurance::L2 {
        return None;
    }
    let record = store.cloned().or_else(|| place::default_store().ok().map(Location::File))?;
    // What keeps a database from others is not on this machine.
    let why = reachable::by_others(record.file()?)?;
    Some(CannotKeep { level: config.assurance, why })
}

async fn run(path: &Path, config: Config, store: Option<Location>, policy: Policy) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let listener =
        TcpListener::bind(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    allow_many_files();
    let on_http = config.http.upstreams.iter().map(|one| Arc::clone(&one.name));
    let on_stdio = config.http.commands.iter().map(|one| Arc::clone(&one.name));
    let servers: Vec<Arc<str>> = on_http.chain(on_stdio).collect();
    let fixed = Fixed::of(&config);
    let mut process =
        GateProcess::open(policy, config.policy, store, servers, config.assurance, None).await?;
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let mut certificates = Certificates::of(config.http.tls.clone(), config.tls_files);
    let workers = thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let proxy = Arc::new(Proxy::new(Arc::clone(&process.gate), config.http, workers));
    let stop = CancellationToken::new();
    let workers = Workers::start(&proxy, &stop)?;
    // Before anybody is told that it listens: that address may be another's.
    process.shown.listen(config.telemetry).await?;
    render::talk(&format!("listening on {scheme}://{address}"));
    let mut accepting = Box::pin(workers.accept(listener, &stop));
    loop {
        tokio::select! {
            accepted = &mut accepting => {
                accepted.context("no more connections can be accepted")?;
                break;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                let reloaded = reload(path, &proxy, &fixed);
                record_reload(&process.gate, path, reloaded.is_some());
                if let Some(config) = reloaded {
                    certificates = Certificates::of(config.http.tls, config.tls_files);
                }
                process.reload_policy(WHO_HANGUP);
            }
            () = certificates.look() => {}
        }
    }
    drop(accepting);
    tracing::info!("stopping: nothing new begins, calls that run may end");
    process.shown.stopping();
    stop.cancel();
    proxy.stop();
    tokio::task::spawn_blocking(move || workers.join()).await?;
    process.close().await;
    Ok(())
}

/// Reads the configuration again and lets the proxy do what it says. What is wrong, or does not go with what this process keeps, is told,
/// and everything stays as it was.
fn reload(path: &Path, proxy: &Proxy, fixed: &Fixed) -> Option<Config> {
    match Config::load_again(path, fixed.in_force()) {
        Ok(config) => {
            proxy.change(config.http.clone());
            tracing::info!("the configuration was read again");
            for key in fixed.changed(&config) {
                tracing::warn!(
                    key,
                    "this has changed in the configuration and counts only after a new start"
                );
            }
            Some(config)
        }
        Err(error) => {
            tracing::error!("the configuration was not read again, because it is wrong");
            render::config_errors(&error);
            None
        }
    }
}

/// Puts on record that the configuration was read again, or was not taken.
fn record_reload(gate: &Gate, path: &Path, is_taken: bool) {
    let occasion = if is_taken { Occasion::ConfigurationLoaded } else { Occasion::ConfigurationRefused };
    let digest = fs::read(path).map(|text| format!("sha256 {}", Digest::of(&text))).ok();
    gate.store().ride_along(AuditEvent {
        who: Some(WHO_HANGUP.to_owned()),
        note: digest,
        reason: (!is_taken).then(|| "it has mistakes, which the log tells".to_owned()),
        ..AuditEvent::new(occasion, gate.instance(), jiff::Timestamp::now())
    });
}

/// What a process keeps as long as it lives.
struct Fixed {
    listen: SocketAddr,
    policy: Vec<PathBuf>,
    store: Option<PathBuf>,
    assurance: Assurance,
    connections_max: usize,
    telemetry: Option<TelemetryAddress>,
}

impl Fixed {
    fn of(config: &Config) -> Self {
        Self {
            listen: config.listen,
            policy: config.policy.clone(),
            store: config.store.clone(),
            assurance: config.assurance,
            connections_max: config.http.limits.connections_max,
            telemetry: config.telemetry.clone(),
        }
    }

    /// What the rest of a configuration has to go with.
    fn in_force(&self) -> InForce {
        InForce { listen: self.listen, assurance: self.assurance }
    }

    /// The keys that say something else in `config`.
    fn changed(&self, config: &Config) -> Vec<&'static str> {
        let new = Self::of(config);
        let keys = [
            ("listen", new.listen != self.listen),
            ("policy", new.policy != self.policy),
            ("store", new.store != self.store),
            ("assurance", new.assurance != self.assurance),
            ("limits.connections", new.connections_max != self.connections_max),
            ("telemetry", new.telemetry != self.telemetry),
        ];
        keys.into_iter().filter(|(_, is_other)| *is_other).map(|(key, _)| key).collect()
    }
}

/// Lets this process have as many connections as the system gives it.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
