//! How a client is told that its call waits, whatever the transport.
//!
//! Used by the session on stdio and by held calls over HTTP.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::gate::ClientQuestion;

/// How often a client that asked for progress hears that its call still waits. Below the 15 s after which the first
/// clients and networks take silence for a failure.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// The step of the progress values sent while a call waits. So small that the server's own first value is larger: the
/// protocol wants progress to increase.
const PROGRESS_STEP: f64 = 1e-6;

/// What the client sees as progress when it is told for the `told`-th time that its call waits.
pub(super) fn progress_value(told: u32) -> f64 {
    f64::from(told) * PROGRESS_STEP
}

/// The question to the client's user, once there is one.
pub(super) async fn question(questions: &mut Option<oneshot::Receiver<ClientQuestion>>) -> ClientQuestion {
    if let Some(asked) = questions {
        let question = asked.await;
        *questions = None;
        if let Ok(question) = question {
            return question;
        }
    }
    std::future::pending().await
}
