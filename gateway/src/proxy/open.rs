//! What a caller is told while the circuit refuses.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use tower_breaker::CircuitOpen;

use super::{Body, problem::problem_with};
use crate::config::{self, Template, WhenOpen};

/// An answer in place of the upstream's.
#[derive(Clone)]
pub(super) struct Refusal {
    respond: config::Respond,
    body: Option<Arc<Compiled>>,
}

/// A template that was read once.
struct Compiled {
    template: config::Compiled,
    content_type: HeaderValue,
}

impl Refusal {
    /// None if the connection is to be closed. What has its answers from
    /// elsewhere needs one as well, for when there is none.
    pub(super) fn of(when_open: &WhenOpen) -> Option<Self> {
        let respond = match when_open {
            WhenOpen::Respond(respond) | WhenOpen::Stale { respond, .. } => respond.clone(),
            WhenOpen::Fallback(_) => plain(),
            WhenOpen::Close => return None,
        };
        let body = respond.body.as_ref().and_then(|template| match compile(template) {
            Ok(compiled) => Some(Arc::new(compiled)),
            // Configurations are checked, so nobody gets here.
            Err(error) => {
                tracing::error!(error, "a template is left out");
                None
            }
        });
        Some(Self { respond, body })
    }

    /// Whether nobody has asked for more than the status.
    pub(super) fn is_plain(&self) -> bool {
        self.respond == plain()
    }

    pub(super) fn answer(&self, open: &CircuitOpen, cause: Option<String>) -> Response<Body> {
        let seconds = open.retry_after().map(whole_seconds);
        let status = self.respond.status;
        let mut response = match self.body.as_ref().and_then(|body| body.render(open, &cause)) {
            Some((body, content_type)) => {
                let mut response = Response::new(Body::full(body));
                *response.status_mut() = status;
                response.headers_mut().insert(CONTENT_TYPE, content_type);
                response
            }
            None if has_no_body(status) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status;
                response
            }
            None => {
                let members = [
                    ("name", open.name().into()),
                    ("state", open.state().as_str().into()),
                    ("retry_after", seconds.into()),
                    ("cause", cause.into()),
                ];
                let title = "The circuit lets no call pass now";
                problem_with(status, "circuit-open", title, &open.to_string(), members)
            }
        };
        let headers = response.headers_mut();
        if let Some(seconds) = seconds.filter(|_| self.respond.retry_after) {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        // Ours first: what is configured wins.
        for name in self.respond.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &self.respond.headers {
            headers.append(name, value.clone());
        }
        response
    }
}

/// Whether HTTP lets it have none.
fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

/// 503 and a problem document.
fn plain() -> config::Respond {
    config::Respond {
        status: StatusCode::SERVICE_UNAVAILABLE,
        retry_after: true,
        headers: HeaderMap::new(),
        body: None,
    }
}

fn compile(template: &Template) -> Result<Compiled, String> {
    let content_type = HeaderValue::from_str(&template.content_type)
        .map_err(|_| format!("content_type {:?} can't be sent", template.content_type))?;
    let start = template.content_type.trim_start().get(..9);
    let is_html = start.is_some_and(|start| start.eq_ignore_ascii_case("text/html"));
    let template = config::Compiled::new(&template.source, is_html)?;
    Ok(Compiled { template, content_type })
}

impl Compiled {
    fn render(&self, open: &CircuitOpen, cause: &Option<String>) -> Option<(String, HeaderValue)> {
        let cause = cause.as_deref().unwrap_or_default();
        let seconds = open.retry_after().map(whole_seconds);
        match self.template.fill(open.name(), open.state().as_str(), seconds, cause) {
            Ok(body) => Some((body, self.content_type.clone())),
            Err(error) => {
                tracing::error!(service = open.name(), error, "no body");
                None
            }
        }
    }
}

/// Rounded up, so that who comes back then is let in.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}
