//! What every process with a gate has: the policy in force, the record, a sign of life, and a control socket.
//!
//! Used by `run` and `serve`. It opens them in the order in which a failure costs least, and closes them so that nothing that was
//! promised is left unwritten.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::time::timeout;

use super::{
    housekeeping::Housekeeping,
    render,
    shown::{self, Shown},
};
use crate::{
    audit::{AuditEvent, Occasion},
    control::{lineage::ClientProcess, place, server as control},
    exit::Exit,
    gate::{Gate, GateLimits},
    hold::{Assurance, HoldId},
    policy::Policy,
    reload::{self, PolicyFiles},
    store::{Location, Store},
    telemetry::Subject,
};

/// The codes of warnings that say what was assumed in reading a policy of another form.
const ASSUMPTIONS: &str = "P04";

/// How long the end of the program waits for the record's last events.
const LAST_EVENTS: Duration = Duration::from_millis(200);

/// How long the end of the program waits for the record's log to be copied into its file, besides.
const LOG_COPIED: Duration = Duration::from_millis(400);

/// How long the beginning of a session may wait for the record. Its client has its own patience, and may go again at once.
const FIRST_READ: Duration = Duration::from_millis(500);

/// Keeps this process's memory and environment from others of the same user. To be called before a server is started.
pub(super) fn be_private() {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// The policy that was named, or the usual one, or the one that holds everything.
pub(super) fn load_policy(named: &[PathBuf], deployed: Assurance) -> Result<Policy, Exit> {
    let paths = policy_files(named);
    if paths.is_empty() {
        let nor =
            place::config_dir().map_or_else(String::new, |dir| format!(" and none is in {}", dir.display()));
        render::talk(&format!(
            "no policy is given{nor}: every call is held until you approve it\n\
             hint: `holdshort holds` in another terminal shows what waits"
        ));
    }
    let policy = reload::load(&paths, deployed).map_err(|errors| render::policy_errors(&errors))?;
    for assumed in policy.warnings().iter().filter(|warning| warning.code().starts_with(ASSUMPTIONS)) {
        tracing::warn!(code = assumed.code(), "{}", assumed.message());
    }
    tracing::info!(rules = policy.rules().len(), warnings = policy.warnings().len(), "policy loaded");
    Ok(policy)
}

/// The files that were named, or the usual ones.
pub(super) fn policy_files(named: &[PathBuf]) -> Vec<PathBuf> {
    if named.is_empty() { usual_policy() } else { named.to_vec() }
}

fn usual_policy() -> Vec<PathBuf> {
    let Some(dir) = place::config_dir() else { return Vec::new() };
    [dir.join("policy.yaml"), dir.join("policy.d")].into_iter().filter(|path| path.exists()).collect()
}

/// The gate of this process with all that belongs to it.
pub(super) struct GateProcess {
    /// The gate.
    pub(super) gate: Arc<Gate>,
    files: Arc<PolicyFiles>,
    control: Option<control::Control>,
    /// What is shown of it, to whom it may concern.
    pub(super) shown: Shown,
    housekeeping: Housekeeping,
    _watching: Option<reload::Watching>,
    liveness: Option<place::Liveness>,
}

impl GateProcess {
    /// Opens the record at `store`, or this user's own, and serves operators for the gate of `servers`; `client`, if it is known, is
    /// none of them.
    ///
    /// # Errors
    ///
    /// When the record has no place, or the system gives no random numbers.
    pub(super) async fn open(
        policy: Policy,
        named: Vec<PathBuf>,
        store: Option<Location>,
        servers: Vec<Arc<str>>,
        deployed: Assurance,
        client: Option<ClientProcess>,
    ) -> anyhow::Result<Self> {
        let location = store.map_or_else(|| place::default_store().map(Location::File), Ok)?;
        let location = location.absolute().context("the record's path cannot be used")?;
        let instance: Arc<str> = instance_name()?.into();
        place::clear_dead(location.file());
        let liveness = location.file().and_then(|path| show_life(&instance, path));
        let is_first_start = location.file().is_some_and(|path| matches!(path.try_exists(), Ok(false)));
        let store = Store::open_at(&location, &instance);
        // In a fleet the connection to the record shows that this gate lives.
        let is_seen = liveness.is_some() || location.file().is_none();
        let policy_sha256 = policy.digest();
        let gate = Gate::new(
            Arc::clone(&instance),
            Arc::new(policy),
            store.clone(),
            // What a gate holds that nobody sees live would be taken for a dead one's, and ended by others.
            GateLimits {
                holds_max: if is_seen { GateLimits::default().holds_max } else { 0 },
                ..GateLimits::default()
            },
        );
        let gate = gate.deployed(deployed);
        if gate.policy().min_assurance() > deployed.max(Assurance::L1) {
            tracing::warn!(%deployed, "the policy wants a higher assurance than this gate has: nobody can approve what it holds so");
        }
        let (record, can_tell) = (location.file().map(Path::to_owned), liveness.is_some());
        let is_dead = move |holder: &str| {
            can_tell && record.as_deref().is_some_and(|record| place::is_dead(record, holder))
        };
        let gate = gate.with_is_dead(Box::new(is_dead));
        let (otlp, tracer) = shown::collector(&instance, store.meter());
        let gate = Arc::new(gate.with_tracer(tracer));
        // Where there was no record nothing is known of tools, and no call waits for it to be made: `hear_of_tools` asks at once.
        if !is_first_start {
            read_tools(&gate).await;
        }
        store.ride_along(AuditEvent {
            server: Some(servers.join(", ")).filter(|names| !names.is_empty()),
            policy_sha256: Some(policy_sha256),
            ..AuditEvent::new(Occasion::GateStarted, &instance, jiff::Timestamp::now())
        });
        let find = Box::new(move || policy_files(&named));
        let files = Arc::new(PolicyFiles::new(Arc::clone(&gate), find, deployed));
        let (record, policy) = (location.to_string(), Some(Arc::clone(&files)));
        let about = control::About { servers, store: record, policy, client };
        let control = open_control(&gate, about, &instance);
        let housekeeping = Housekeeping::begin(&gate).context("the gate cannot look after itself")?;
        let _watching = watch(&files);
        let shown = Shown::new(Subject::gate(Arc::clone(&gate)), otlp);
        Ok(Self { gate, files, control, shown, housekeeping, _watching, liveness })
    }

    /// Reads the policy's files again because `who` has said so. What is wrong in them has been told and recorded; the last good
    /// policy stays then.
    pub(super) fn reload_policy(&self, who: &str) {
        let _ = self.files.reload(who);
    }

    /// Nothing is held or running any more: writes down the end.
    pub(super) async fn close(self) {
        drop(self.control);
        drop(self.housekeeping);
        let store = self.gate.store();
        store.ride_along(AuditEvent::new(
            Occasion::GateStopped,
            self.gate.instance(),
            jiff::Timestamp::now(),
        ));
        let written = timeout(LAST_EVENTS, async {
            self.gate.record_owed().await;
            store.flush().await
        });
        if let Ok(Ok(())) = written.await {
            settle(store).await;
        }
        self.shown.end().await;
        // Last: until here others must not end what this gate is still writing down.
        drop(self.liveness);
    }
}

/// What a process does last with its record: a copy of the file alone is whole then. Never longer than [`LOG_COPIED`]: what is not
/// copied is as safe in the log.
pub(super) async fn settle(store: &Store) {
    let _ = timeout(LOG_COPIED, store.settle()).await;
}

/// Reads which definitions of tools were accepted, and does not wait long for it: `hear_of_tools` goes on with that.
async fn read_tools(gate: &Gate) {
    match timeout(FIRST_READ, gate.refresh_tools()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "the definitions of tools that were accepted cannot be read: no call of a tool passes");
        }
        Err(_) => {
            gate.begin_without_tools();
            tracing::error!(
                "the record does not answer: no call of a tool passes before it has said which definitions were accepted"
            );
        }
    }
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

/// Watches the policy's files. Without that a change counts after `holdshort policy reload`.
fn watch(files: &Arc<PolicyFiles>) -> Option<reload::Watching> {
    files.watch().unwrap_or_else(|error| {
        tracing::warn!(%error, "the policy's files cannot be watched: reload it with `holdshort policy reload`");
        None
    })
}

/// 128 random bits: the name of this process in the record.
fn instance_name() -> anyhow::Result<String> {
    Ok(HoldId::random().context("the system gives no random numbers")?.to_string())
}
