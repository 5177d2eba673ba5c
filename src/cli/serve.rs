//! `holdshort serve`: a reverse proxy before MCP servers that speak HTTP.
//!
//! Composes configuration, policy, record, gate, control socket and listener. One thread accepts and hears signals; the workers have
//! threads of their own. SIGTERM and SIGINT end it in order: nothing new begins, calls that run end, calls that wait are withdrawn.

use std::{net::TcpListener, path::Path, sync::Arc, thread};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    process::{GateProcess, load_policy},
    render,
};
use crate::{
    config::Config,
    exit::Exit,
    gate::Gate,
    hold::Withdrawal,
    policy::Policy,
    transport::http::{Proxy, listener::Workers},
};

/// Threads that serve connections: as many as there are processors, and no more than this.
const WORKERS_MAX: usize = 32;

pub(super) fn serve(path: &Path) -> Exit {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return render::config_errors(&error),
    };
    let policy = match load_policy(&config.policy) {
        Ok(policy) => policy,
        Err(exit) => return exit,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return render::failed(&error),
    };
    match runtime.block_on(run(config, policy)) {
        Ok(()) => Exit::Done,
        Err(error) => render::error_chain(&error),
    }
}

async fn run(config: Config, policy: Policy) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener =
        TcpListener::bind(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    allow_many_files();
    let servers: Vec<Arc<str>> = config.http.upstreams.iter().map(|one| Arc::clone(&one.name)).collect();
    let process = GateProcess::open(policy, config.policy, config.store, servers)?;
    let workers = thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let proxy = Arc::new(Proxy::new(Arc::clone(&process.gate), config.http, workers));
    let stop = CancellationToken::new();
    let workers = Workers::start(&proxy, &stop)?;
    render::talk(&format!("listening on http://{address}"));
    tokio::select! {
        accepted = workers.accept(listener, &stop) => accepted.context("no more connections can be accepted")?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: nothing new begins, calls that run may end");
    stop.cancel();
    withdraw_all(&process.gate);
    tokio::task::spawn_blocking(move || workers.join()).await?;
    process.close().await;
    Ok(())
}

/// What waits is told that it does not run.
fn withdraw_all(gate: &Gate) {
    for hold in gate.holds() {
        gate.withdraw(hold.id, Withdrawal::Stopping);
    }
}

/// Lets this process have as many connections as the system gives it.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
