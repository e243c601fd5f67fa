//! A client of the operator's listener.

use std::{fs, io, path::Path, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::crypto::ring;
use serde_json::Value;
use tokio::time::timeout;

use super::{Error, Global};
use crate::{
    admin::tokens::{self, Role},
    config,
};

/// How long an answer may take to come. A stream's head is one.
const WITHIN: Duration = Duration::from_secs(10);

/// The longest answer that is read: the list of 10,000 circuits has room.
const LONGEST: usize = 64 << 20;

/// Asks the gateway, with a token.
#[derive(Debug)]
pub struct Client {
    /// With no slash at its end.
    base: String,
    token: String,
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// For the gateway that is meant: by `--admin`, or by the configuration.
    ///
    /// # Errors
    ///
    /// If it is not known where that is, or there is no token.
    pub fn new(global: &Global) -> Result<Self, Error> {
        let (base, token) = address(global)?;
        Self::of(base, token)
    }

    fn of(base: String, token: String) -> Result<Self, Error> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(WITHIN));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(ring::default_provider())
            .map_err(Error::new)?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self { base, token, http: legacy::Client::builder(TokioExecutor::new()).build(https) })
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// What is at a path behind `/api/v1/`.
    ///
    /// # Errors
    ///
    /// If the gateway can't be reached, or says no.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.send(Method::GET, path, None).await?.map_err(Into::into)
    }

    /// Has something done. The outer error is that nothing was heard, the inner
    /// one that the gateway says no.
    ///
    /// # Errors
    ///
    /// If the gateway can't be reached.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Result<Value, Refused>, Error> {
        let asking = async {
            let response = self.ask(method, path, None, body).await?;
            let status = response.status();
            let text = Limited::new(response.into_body(), LONGEST).collect().await;
            let text = text.map_err(|error| self.broken(&error))?.to_bytes();
            if status == StatusCode::OK {
                return serde_json::from_slice(&text).map(Ok).map_err(|error| self.broken(&error));
            }
            Ok(Err(Refused::read(status, &text)))
        };
        timeout(WITHIN, asking).await.unwrap_or_else(|_| Err(self.silent()))
    }

    /// The stream of events, from behind an id on or from now on.
    ///
    /// # Errors
    ///
    /// If the gateway can't be reached, or says no.
    pub async fn stream(&self, after: Option<&str>) -> Result<Incoming, Error> {
        let asking = self.ask(Method::GET, "stream", after, None);
        let response = timeout(WITHIN, asking).await.unwrap_or_else(|_| Err(self.silent()))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response.into_body());
        }
        let text = Limited::new(response.into_body(), LONGEST).collect();
        let text = timeout(WITHIN, text).await.map_err(|_| self.silent())?;
        Err(Refused::read(status, &text.map_err(|error| self.broken(&error))?.to_bytes()).into())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        after: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1/{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let body = match body {
            None => Full::default(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Full::from(body.to_string())
            }
        };
        let request = request.body(body).map_err(Error::new)?;
        self.http.request(request).await.map_err(|error| {
            let why = innermost(&error);
            Error::unreachable(format_args!("no gateway answers at {}: {why}", self.base))
        })
    }

    fn silent(&self) -> Error {
        let Self { base, .. } = self;
        Error::unreachable(format_args!("{base} has not answered within {} s", WITHIN.as_secs()))
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Error {
        let what = "is no answer of a gateway";
        Error::unreachable(format_args!("what {} answered {what}: {error}", self.base))
    }
}

/// A segment of a path.
pub fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// What the gateway says when it says no.
#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
    /// How it is instead; null if that is not said.
    pub current: Value,
}

impl Refused {
    fn read(status: StatusCode, text: &[u8]) -> Self {
        let mut said: Value = serde_json::from_slice(text).unwrap_or_default();
        let error = said["error"].take();
        let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        let (code, mut message) = (text("code"), text("message"));
        if message.is_empty() {
            message = format!("the answer is {status}, which is not a gateway's");
        }
        Self { status, code, message, current: error["current"].clone() }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let message = refused.message;
        match refused.status {
            StatusCode::CONFLICT if refused.code.starts_with("stale") => Self::stale(message),
            // It is about to stop, or has no more room: that passes.
            StatusCode::SERVICE_UNAVAILABLE => Self::unreachable(message),
            StatusCode::UNAUTHORIZED => Self::new(
                "the gateway does not know this token; --token-file names the file of the right one",
            ),
            _ => Self::new(message),
        }
    }
}

/// Where the gateway is, and the token for it.
pub fn address(global: &Global) -> Result<(String, String), Error> {
    address_for(global, None)
}

/// With the token of this role, or else with the best there is.
pub fn address_for(global: &Global, role: Option<Role>) -> Result<(String, String), Error> {
    let configured = match (&global.admin, &global.token_file) {
        (Some(_), Some(_)) => None,
        _ => Some(global.admin()?),
    };
    let base = match (&global.admin, &configured) {
        (Some(url), _) => valid_url(url)?,
        (None, Some(admin)) => format!("http://{}", config::here(admin.listen)),
        (None, None) => unreachable!("one of the two is there"),
    };
    let token = match (&global.token_file, &configured) {
        (Some(file), _) => read_token(file)?,
        (None, Some(config::Admin { state, .. })) => {
            let roles = role.map_or(vec![Role::Operator, Role::Viewer], |role| vec![role]);
            let mut tokens = roles.into_iter().map(|role| read_token(&tokens::path(state, role)));
            let first = tokens.next().unwrap_or_else(|| Err(Error::new("no token")));
            first.or_else(|error| tokens.next().and_then(Result::ok).ok_or(error))?
        }
        (None, None) => unreachable!("one of the two is there"),
    };
    Ok((base, token))
}

fn valid_url(text: &str) -> Result<String, Error> {
    let wrong = || {
        let right = "a URL such as http://127.0.0.1:9090";
        Error::usage(format_args!("--admin is {text:?}, but must be {right}"))
    };
    let url: Uri = text.parse().map_err(|_| wrong())?;
    let is_web = matches!(url.scheme_str(), Some("http" | "https"));
    let is_right = is_web && url.authority().is_some() && url.query().is_none();
    if is_right { Ok(text.trim_end_matches('/').to_owned()) } else { Err(wrong()) }
}

fn read_token(file: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(file).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; `brk serve` and `brk token` make it",
            io::ErrorKind::PermissionDenied => "; it belongs to whoever runs the gateway",
            _ => "",
        };
        Error::new(format_args!("the token in {} can't be read: {error}{hint}", file.display()))
    })?;
    let token = text.trim();
    let is_right = (16..=512).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    if is_right {
        return Ok(token.to_owned());
    }
    Err(Error::new(format_args!("there is no token in {}", file.display())))
}

/// What lies at the bottom of an error: "connection refused" rather than
/// "client error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// All circuits that a query is met by, piece by piece.
pub async fn all_circuits(client: &Client, query: &str) -> Result<Value, Error> {
    let mut all = Vec::new();
    loop {
        let offset = all.len();
        let path = format!("circuits?limit=1000&offset={offset}&sort=trouble{query}");
        let mut part = client.get(&path).await?;
        let Value::Array(circuits) = part["circuits"].take() else { break };
        let is_last = circuits.is_empty();
        all.extend(circuits);
        if is_last || all.len() as u64 >= part["total"].as_u64().unwrap_or_default() {
            break;
        }
    }
    Ok(all.into())
}
