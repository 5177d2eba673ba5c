//! News for open pages and for REST, as server-sent events.
//!
//! Called by the routes. A reader that is too slow is told that it missed something and reads the list again; one whose
//! session has ended hears nothing more.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State as Extracted,
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures_util::stream;
use serde::Serialize;
use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        broadcast::{Receiver, error::RecvError},
    },
    time::{Instant, sleep_until},
};

use super::{
    State,
    guard::SignedIn,
    hub::News,
    pages::PageProblem,
    problem::{Kind, Problem},
};
use crate::control::api::HoldView;

/// How often a stream says that it is alive, and looks whether whoever reads it is still signed in.
const BEAT: Duration = Duration::from_secs(15);

/// Streams at the same time.
pub(super) const STREAMS_MAX: usize = 128;

/// What a stream of events says: JSON, or pieces of a page.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Json,
    Page,
}

/// Whether whoever reads a stream still may.
pub(super) type StillMay = Box<dyn Fn(&State) -> bool + Send>;

/// News for an open page: the row of each hold that waits or has ended.
pub(super) async fn page(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
) -> Result<Response, PageProblem> {
    Ok(stream(&state, Form::Page, Box::new(move |state| state.sessions.lives(session.id)))?)
}

struct Told {
    state: Arc<State>,
    news: Receiver<Arc<News>>,
    form: Form,
    still_may: StillMay,
    beat: Instant,
    _place: OwnedSemaphorePermit,
}

/// A stream of all news from now on.
pub(super) fn stream(state: &Arc<State>, form: Form, still_may: StillMay) -> Result<Response, Problem> {
    let place = Arc::clone(&state.streams).try_acquire_owned();
    let place = place.map_err(|_| Problem::new(Kind::TooOften(10), "too many streams are open"))?;
    let told = Told {
        state: Arc::clone(state),
        news: state.hub.watch(),
        form,
        still_may,
        // At once: whoever reads it knows that from here on nothing is missed.
        beat: Instant::now(),
        _place: place,
    };
    Ok(Sse::new(stream::unfold(told, next)).into_response())
}

async fn next(mut told: Told) -> Option<(Result<Event, Infallible>, Told)> {
    let event = tokio::select! {
        biased;
        news = told.news.recv() => match news {
            Ok(news) => told.form.event(&news),
            Err(RecvError::Lagged(_)) => Event::default().event("missed").data("{\"event\":\"missed\"}"),
            Err(RecvError::Closed) => return None,
        },
        () = sleep_until(told.beat) => {
            told.beat = Instant::now() + BEAT;
            Event::default().comment("listening")
        }
    };
    if !(told.still_may)(&told.state) {
        return None;
    }
    Some((Ok(event), told))
}

impl Form {
    fn event(self, news: &News) -> Event {
        #[derive(Serialize)]
        struct OnPage<'a> {
            id: Option<String>,
            waiting: usize,
            html: &'a str,
        }
        #[derive(Serialize)]
        struct InJson<'a> {
            event: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            hold: Option<&'a HoldView>,
        }
        let data = match self {
            Self::Page => serde_json::to_string(&OnPage {
                id: news.hold.as_ref().map(|hold| hold.id.to_string()),
                waiting: news.waiting,
                html: &news.html,
            }),
            Self::Json => serde_json::to_string(&InJson { event: news.event, hold: news.hold.as_deref() }),
        };
        match data {
            Ok(data) => Event::default().event(news.event).data(data),
            Err(error) => {
                tracing::error!(%error, "a piece of news cannot be written");
                Event::default().event("missed").data("{\"event\":\"missed\"}")
            }
        }
    }
}

/// Places for streams.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(STREAMS_MAX))
}
