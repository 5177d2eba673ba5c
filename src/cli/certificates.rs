//! The certificates of a listener, read again when their files change.
//!
//! Used by `serve` and `desk`. What cannot be used is told, and what was in use stays.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::transport::http::tls::{ServerTls, ServerTlsFiles};

/// How often it is looked whether certificates have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The listener's certificates, and what their files were when they were read.
pub(super) struct Certificates {
    loaded: Option<(Arc<ServerTls>, ServerTlsFiles, Vec<Option<SystemTime>>)>,
    ticks: Interval,
}

impl Certificates {
    /// Those of a listener; none, if it speaks without TLS. Only within a runtime.
    pub(super) fn of(tls: Option<Arc<ServerTls>>, files: Option<ServerTlsFiles>) -> Self {
        let loaded = tls.zip(files).map(|(tls, files)| {
            let changed = changed_at(&files);
            (tls, files, changed)
        });
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { loaded, ticks }
    }

    /// When it is time for it, reads files that have changed again; what cannot be used is told once, and what was in use stays.
    pub(super) async fn look(&mut self) {
        self.ticks.tick().await;
        let Some((tls, files, known)) = &mut self.loaded else { return };
        let now = changed_at(files);
        if now == *known {
            return;
        }
        *known = now;
        match tls.reload(files) {
            Ok(()) => tracing::info!("certificates were read again"),
            Err(error) => {
                tracing::error!(%error, "certificates have changed and cannot be used; the old ones stay")
            }
        }
    }

    /// Looks again and again.
    pub(super) async fn keep_looking(mut self) -> std::convert::Infallible {
        loop {
            self.look().await;
        }
    }
}

/// When each of the files was last written.
fn changed_at(files: &ServerTlsFiles) -> Vec<Option<SystemTime>> {
    let paths = [Some(&files.certificate), Some(&files.key), files.client_roots.as_ref()];
    paths.into_iter().flatten().map(|path| fs::metadata(path).and_then(|data| data.modified()).ok()).collect()
}
