//! Questions of ours to the client's own user, in a session over lines: asked, answered, and taken back.
//!
//! A part of `session`. The answers go to the gate, which alone knows what they are worth; the server never sees them.

use std::{collections::HashMap, sync::Arc};

use tokio::io::AsyncWrite;

use super::{Call, Session};
use crate::{
    gate::{AskedAbout, ClientQuestion},
    jsonrpc::{Frame, RequestId},
    mcp,
};

/// Our questions without an answer: by their own ids, with the calls and what they are about.
#[derive(Default)]
pub(super) struct Questions(HashMap<RequestId, (RequestId, AskedAbout)>);

impl<DW: AsyncWrite + Unpin, UW: AsyncWrite + Unpin> Session<DW, UW> {
    /// Asks the client's user about the call `id`, if that still waits.
    pub(super) fn ask_user(&mut self, id: RequestId, question: ClientQuestion) {
        if matches!(self.calls.get_mut(&id), Some(Call::Held { .. })) && !self.downstream.is_full() {
            self.downstream.send(question.line);
            self.questions.0.insert(question.id, (id, question.about));
        }
    }

    /// Whether `answer` of the client is one to a question of ours; then the gate hears of it.
    pub(super) fn is_answer_to_us(&mut self, answer: &Frame) -> bool {
        let Some((_, about)) = answer.id().and_then(|id| self.questions.0.remove(id)) else { return false };
        let (gate, answer) = (Arc::clone(&self.gate), answer.clone());
        self.tasks.spawn(async move { gate.elicited(about, answer.result()).await });
        true
    }

    /// The call `id` waits no longer: nobody need answer what was asked about it.
    pub(super) fn take_questions_back(&mut self, id: &RequestId) {
        let asked = self.questions.0.extract_if(|_, (call, _)| call == id);
        for (question, _) in asked {
            self.downstream.send(mcp::cancelled_notification(&question));
        }
    }
}
