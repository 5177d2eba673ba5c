//! What a gate does by itself, from time to time, on a thread of its own.
//!
//! Started by `process`. Nothing that waits for a time is left to the thread of the protocol: its every wait for a frame would set a
//! timer and take it back, which is a good part of what a small call costs.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};

use crate::{gate::Gate, store::StoreError};

/// How often it is looked for holds without a caller whose time is over. Whoever meets one earlier ends it then.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How often it is looked whether another gate on a record in a file has died: until then nobody sees its calls among those that wait. In a
/// fleet every look is a question to the database for each process, and commands that list look themselves.
const LOOK_FOR_DEAD_EVERY: Duration = Duration::from_secs(3);

/// How often it is read from the record what others have found out about tools. Whoever accepts a definition tells all gates.
const HEAR_OF_TOOLS_EVERY: Duration = Duration::from_secs(5);

/// The housekeeping of one gate. Ends when it is dropped.
pub(super) struct Housekeeping {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeping {
    /// Begins to keep house for `gate`.
    ///
    /// # Errors
    ///
    /// When there is no thread for it.
    pub(super) fn begin(gate: &Arc<Gate>) -> io::Result<Self> {
        let gate = Arc::clone(gate);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("holdshort-house".to_owned()).spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_time().build() {
                Ok(runtime) => runtime.block_on(keep_house(gate, stopped)),
                Err(error) => tracing::error!(%error, "the gate cannot look after itself"),
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Does all of it until `stopped`.
async fn keep_house(gate: Arc<Gate>, stopped: oneshot::Receiver<()>) {
    let [reminding, recording] = [(); 2].map(|()| Arc::clone(&gate));
    tokio::spawn(look_after(Arc::clone(&gate)));
    tokio::spawn(hear_of_tools(Arc::clone(&gate)));
    tokio::spawn(gate.keep_in_touch());
    tokio::spawn(async move { reminding.keep_reminding().await });
    tokio::spawn(async move { recording.keep_recording().await });
    // Nothing is ever sent: its other end is dropped.
    let _ = stopped.await;
}

/// Takes over, again and again, what other gates on the record have left when they died, and ends what has no caller
/// and whose time is over.
async fn look_after(gate: Arc<Gate>) {
    if let Err(error) = gate.store().ready().await {
        tracing::error!(%error, "the record cannot be used: every call that would be held is refused");
        return;
    }
    if let Err(error) = take_over(&gate).await {
        tracing::error!(%error, "calls of dead gates could not be taken over");
    }
    let is_file = gate.store().heard().is_none();
    let mut looks = interval(if is_file { LOOK_FOR_DEAD_EVERY } else { SWEEP_EVERY });
    let mut sweeps = interval(SWEEP_EVERY);
    for ticks in [&mut looks, &mut sweeps] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            _ = looks.tick() => {
                if let Err(error) = take_over(&gate).await {
                    tracing::debug!(%error, "calls of dead gates could not be taken over");
                }
            }
            _ = sweeps.tick() => {
                if let Err(error) = gate.store().sweep().await {
                    tracing::debug!(%error, "what is overdue could not be ended");
                }
            }
        }
    }
}

async fn take_over(gate: &Gate) -> Result<(), StoreError> {
    let (detached, unknown) = gate.take_over_dead().await?;
    if (detached, unknown) != (0, 0) {
        tracing::warn!(detached, unknown, "calls of gates that have died were taken over");
    }
    Ok(())
}

/// Hears what other gates on the record find out about tools, and what operators accept.
async fn hear_of_tools(gate: Arc<Gate>) {
    let mut ticks = interval(HEAR_OF_TOOLS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = gate.refresh_tools().await {
            tracing::debug!(%error, "what others have recorded of tools cannot be read");
        }
    }
}
