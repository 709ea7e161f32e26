//! What one request has asked of others and made up by itself.
//!
//! A plan is synchronous and may be made several times. When it needs the
//! answer of another server (a webhook) that is not here yet, it leaves the
//! question and gives up; [`super::Pipeline`] asks, and plans again with the
//! answer at hand. So that the second plan asks the same questions, what the
//! first one made up (uids, names, the time) is kept here too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use barque_api::StatusError;
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::World;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tracing::debug;

use crate::outbound::{ClientConfig, JsonCaller, OutboundError};

/// Questions of one request asked at the same time, at most.
const MAX_PARALLEL: usize = 32;
/// Questions that one request may ask in all, so that webhooks that never
/// agree come to an end.
const MAX_QUESTIONS: usize = 1_000;

/// Identifies a question by what is asked of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuestionId([u8; 32]);

impl QuestionId {
    /// The id of a question with these parts.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// A call to another server that a plan waits for.
#[derive(Debug, Clone)]
pub struct Question {
    /// Under which the answer is remembered.
    pub id: QuestionId,
    /// Whom to ask.
    pub client: Arc<ClientConfig>,
    /// The JSON document to send.
    pub body: Bytes,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    /// What went wrong.
    pub message: String,
    /// Whether the time ran out.
    pub timed_out: bool,
}

/// The answer to a question: a JSON document.
pub type Answer = Result<Arc<Value>, NoAnswer>;

#[derive(Default)]
struct State {
    answers: HashMap<QuestionId, Answer>,
    open: Vec<Question>,
    salt: Option<[u8; 16]>,
    uid: Option<String>,
    suffixes: Vec<String>,
    random: HashMap<&'static str, String>,
    now: Option<Timestamp>,
}

/// The memory of one request.
#[derive(Default)]
pub struct Memo(Mutex<State>);

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memo")
    }
}

impl Memo {
    /// The answer, if it is known.
    #[must_use]
    pub fn answer(&self, id: QuestionId) -> Option<Answer> {
        self.0.lock().answers.get(&id).cloned()
    }

    /// Leaves questions to be asked. The plan gives up with the error that is
    /// returned, which no client ever sees.
    #[must_use]
    pub fn ask(&self, questions: Vec<Question>) -> StatusError {
        self.0.lock().open.extend(questions);
        StatusError::internal("the write waits for the answer of another server")
    }

    /// The questions left by the last plan.
    pub(super) fn take_open(&self) -> Vec<Question> {
        std::mem::take(&mut self.0.lock().open)
    }

    /// The uid under which a question is asked: the same whenever the request
    /// is planned again, another one in another request.
    #[must_use]
    pub fn uid_of(&self, id: QuestionId) -> String {
        let salt = *self.0.lock().salt.get_or_insert_with(|| {
            let mut salt = [0; 16];
            barque_api::world::Entropy::fill(&barque_api::world::SystemEntropy, &mut salt);
            salt
        });
        let QuestionId(digest) = QuestionId::of(&[&id.0, &salt]);
        let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        // The form of a random UUID.
        let variant = char::from(b"89ab"[usize::from(digest[8] >> 6)]);
        format!("{}-{}-4{}-{variant}{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }

    /// The uid of what this request creates.
    pub(super) fn uid(&self, world: &World) -> String {
        self.0.lock().uid.get_or_insert_with(|| world.new_uid()).clone()
    }

    /// The random end of the name generated at the given attempt, from 1.
    pub(super) fn suffix(&self, world: &World, attempt: usize, length: usize) -> String {
        let mut state = self.0.lock();
        while state.suffixes.len() < attempt {
            state.suffixes.push(world.random_suffix(length));
        }
        state.suffixes[attempt.saturating_sub(1)].clone()
    }

    /// Random characters that a plugin adds for a purpose, the same whenever
    /// the request is planned again.
    #[must_use]
    pub fn random(&self, world: &World, purpose: &'static str, length: usize) -> String {
        self.0.lock().random.entry(purpose).or_insert_with(|| world.random_suffix(length)).clone()
    }

    /// The time of the request.
    pub(super) fn now(&self, world: &World) -> Timestamp {
        *self.0.lock().now.get_or_insert_with(|| world.now())
    }

    /// Asks, all at once, and remembers the answers.
    ///
    /// # Errors
    /// When the request has asked too much.
    pub(super) async fn resolve(&self, caller: &dyn JsonCaller, questions: Vec<Question>) -> Result<(), StatusError> {
        if self.0.lock().answers.len() + questions.len() > MAX_QUESTIONS {
            return Err(StatusError::internal(format!(
                "the webhooks of this request did not come to an end after {MAX_QUESTIONS} calls"
            )));
        }
        let mut running = futures::stream::iter(questions.into_iter().map(|question| async move {
            let reply = caller.post(&question.client, question.body.clone(), question.timeout).await;
            let answer = match reply {
                Ok(bytes) => serde_json::from_slice(&bytes).map(Arc::new).map_err(|error| NoAnswer {
                    message: format!("couldn't get version/kind; json parse error: {error}"),
                    timed_out: false,
                }),
                // An answer, if not a good one, is reported as such.
                Err(error @ OutboundError::Status { .. }) => {
                    Err(NoAnswer { message: error.to_string(), timed_out: false })
                }
                Err(error) => Err(NoAnswer {
                    message: format!("Post {:?}: {error}", question.client.url()),
                    timed_out: error.is_timeout(),
                }),
            };
            if let Err(problem) = &answer {
                debug!(url = question.client.url(), error = problem.message, "webhook gave no answer");
            }
            (question.id, answer)
        }))
        .buffer_unordered(MAX_PARALLEL);
        while let Some((id, answer)) = running.next().await {
            self.0.lock().answers.insert(id, answer);
        }
        Ok(())
    }
}
