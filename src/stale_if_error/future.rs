//! The future of a call that what is kept may answer in the end.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::AGE, uri::Scheme};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    body::{Copy, StaleIfErrorBody},
    rules::{Role, is_server_error, key, supersedes},
    store::Store,
};
use crate::{BoxError, CircuitOpen, KeptError};

pin_project! {
    /// The future of [`StaleIfError`](crate::StaleIfError).
    pub struct StaleIfErrorFuture<F, Kind> {
        #[pin]
        call: Call<F>,
        // Gone once it is answered, or where what is kept has no part in it.
        ask: Option<Ask>,
        kind: PhantomData<fn() -> Kind>,
    }
}

pin_project! {
    #[project = CallProj]
    enum Call<F> {
        Made { #[pin] call: F },
        // The service refused it before it was made.
        Refused { error: Option<BoxError> },
    }
}

impl<F, Kind> StaleIfErrorFuture<F, Kind> {
    pub(super) const fn calling(call: F, ask: Option<Ask>) -> Self {
        Self { call: Call::Made { call }, ask, kind: PhantomData }
    }

    pub(super) const fn refused(error: BoxError, ask: Option<Ask>) -> Self {
        Self { call: Call::Refused { error: Some(error) }, ask, kind: PhantomData }
    }
}

impl<F, Kind, B, E> Future for StaleIfErrorFuture<F, Kind>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    E: KeptError<Kind>,
{
    type Output = Result<Response<StaleIfErrorBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let error = match this.call.project() {
            CallProj::Made { call } => match ready!(call.poll(cx)) {
                Ok(response) => {
                    return Poll::Ready(Ok(match this.ask.take() {
                        Some(ask) => ask.conclude(response),
                        None => response.map(StaleIfErrorBody::live),
                    }));
                }
                Err(error) => error.hold(),
            },
            CallProj::Refused { error } => match error.take() {
                Some(error) => error,
                None => unreachable!("polled after it was answered"),
            },
        };
        let kept = this.ask.take().and_then(|ask| ask.answer_for(&error));
        Poll::Ready(kept.ok_or_else(|| E::release(error)))
    }
}

impl<F, Kind> fmt::Debug for StaleIfErrorFuture<F, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleIfErrorFuture").finish_non_exhaustive()
    }
}

/// What a request leaves behind.
pub(super) struct Ask {
    store: Arc<Store>,
    role: Role,
    key: String,
    scheme: Option<Scheme>,
    headers: HeaderMap,
    /// When it was sent.
    asked: Instant,
}

impl Ask {
    /// What this one leaves, if what is kept has a part in it.
    pub(super) fn of<B: Body>(request: &Request<B>, store: &Arc<Store>) -> Option<Self> {
        let role = Role::of(request.method())?;
        if role != Role::Unsafe && !request.body().is_end_stream() {
            // Some ask by what is in the body, which nothing is kept under.
            return None;
        }
        let headers = match role {
            Role::Get | Role::Head => request.headers().clone(),
            Role::Unsafe => HeaderMap::new(),
        };
        Some(Self {
            role,
            key: key(request.uri(), request.headers())?,
            scheme: request.uri().scheme().cloned(),
            headers,
            asked: store.settings.clock.now(),
            store: Arc::clone(store),
        })
    }

    /// What becomes of a response.
    fn conclude<B: Body>(self, response: Response<B>) -> Response<StaleIfErrorBody<B>> {
        let status = response.status();
        match self.role {
            Role::Unsafe => {
                if status.is_success() || status.is_redirection() {
                    self.store.forget(self.key);
                }
            }
            Role::Get | Role::Head => {
                if is_server_error(status) && self.store.settings.on_server_errors {
                    if let Some(kept) = self.answer() {
                        return kept;
                    }
                } else if supersedes(status) {
                    self.store.forget(self.key);
                } else if status == StatusCode::NOT_MODIFIED {
                    let Self { store, key, scheme, headers, asked, .. } = self;
                    store.freshen(key, scheme, &headers, response.headers(), asked);
                } else if self.role == Role::Get && status == StatusCode::OK {
                    let Self { store, key, scheme, headers, asked, .. } = self;
                    if let Some(copy) = Copy::of(&response, store, key, scheme, &headers, asked) {
                        return response.map(|body| StaleIfErrorBody::copied(body, copy));
                    }
                }
            }
        }
        response.map(StaleIfErrorBody::live)
    }

    /// The answer in place of an error, if that is one to answer for.
    fn answer_for<B>(&self, error: &BoxError) -> Option<Response<StaleIfErrorBody<B>>> {
        let is_answered =
            self.store.settings.on_any_error || CircuitOpen::find_in(&**error).is_some();
        if is_answered { self.answer() } else { None }
    }

    fn answer<B>(&self) -> Option<Response<StaleIfErrorBody<B>>> {
        if self.role == Role::Unsafe {
            return None;
        }
        let (kept, age) = self.store.find(&self.key, self.scheme.as_ref(), &self.headers)?;
        let body = match self.role {
            Role::Get => kept.body.clone(),
            Role::Head | Role::Unsafe => Bytes::new(),
        };
        let mut response = Response::new(StaleIfErrorBody::kept(body));
        *response.version_mut() = kept.version;
        *response.headers_mut() = kept.headers.clone();
        response.headers_mut().insert(AGE, age.as_secs().into());
        Some(response)
    }
}
