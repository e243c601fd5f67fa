//! What a request is for, by its path and method.

use http::Method;
use percent_encoding::{
    AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode_str, utf8_percent_encode,
};

use super::refusal::Refusal;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A file of the page, by its name; none for the page itself.
    File(String),
    Live,
    Ready,
    Metrics,
    Me,
    Circuits,
    Circuit(String),
    Events,
    Stream,
    Steer(Target),
}

/// What a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    SetOverride(String),
    ClearOverride(String),
    Transition(String),
    Reset(String),
    Bulk,
}

/// Whether a path is behind the token.
pub(super) fn is_guarded(path: &str) -> bool {
    path == "/metrics" || path == "/api" || path.starts_with("/api/")
}

/// Finds what is at a path. A `HEAD` is a `GET`.
pub(super) fn find(method: &Method, path: &str) -> Result<Route, Refusal> {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let get = |route: Route| match *method {
        Method::GET | Method::HEAD => Ok(route),
        _ => Err(Refusal::method_not_allowed("GET, HEAD")),
    };
    let post = |target: Target| match *method {
        Method::POST => Ok(Route::Steer(target)),
        _ => Err(Refusal::method_not_allowed("POST")),
    };
    match *segments {
        [] => get(Route::File(String::new())),
        ["livez"] => get(Route::Live),
        ["readyz"] => get(Route::Ready),
        ["metrics"] => get(Route::Metrics),
        [file] => get(Route::File(file.to_owned())),
        ["api", "v1", "me"] => get(Route::Me),
        ["api", "v1", "circuits"] => get(Route::Circuits),
        ["api", "v1", "events"] => get(Route::Events),
        // A head without its stream would be of no use.
        ["api", "v1", "stream"] if *method == Method::GET => Ok(Route::Stream),
        ["api", "v1", "stream"] => Err(Refusal::method_not_allowed("GET")),
        ["api", "v1", "bulk"] => post(Target::Bulk),
        ["api", "v1", "circuits", ref rest @ ..] => match *rest {
            [id] => get(Route::Circuit(decode(id)?)),
            [id, action] if is_action(action) && !matches!(*method, Method::GET | Method::HEAD) => {
                steer(method, decode(id)?, action)
            }
            [name, key] => get(Route::Circuit(id_of(name, key)?)),
            [name, key, action] if is_action(action) => steer(method, id_of(name, key)?, action),
            _ => Err(Refusal::not_found()),
        },
        _ => Err(Refusal::not_found()),
    }
}

fn is_action(segment: &str) -> bool {
    matches!(segment, "override" | "transition" | "reset")
}

fn steer(method: &Method, id: String, action: &str) -> Result<Route, Refusal> {
    match (action, method) {
        ("override", &Method::POST) => Ok(Route::Steer(Target::SetOverride(id))),
        ("override", &Method::DELETE) => Ok(Route::Steer(Target::ClearOverride(id))),
        ("override", _) => Err(Refusal::method_not_allowed("POST, DELETE")),
        ("transition", &Method::POST) => Ok(Route::Steer(Target::Transition(id))),
        ("reset", &Method::POST) => Ok(Route::Steer(Target::Reset(id))),
        _ => Err(Refusal::method_not_allowed("POST")),
    }
}

/// The id of one of a group: a key is in it as it is in a path.
fn id_of(name: &str, key: &str) -> Result<String, Refusal> {
    Ok(format!("{}/{}", decode(name)?, encode(&decode(key)?)))
}

/// An id as it is told, however much of its key is encoded.
pub(super) fn as_told(id: String) -> String {
    let told = id
        .split_once('/')
        .and_then(|(name, key)| Some(format!("{name}/{}", encode(&decode(key).ok()?))));
    told.unwrap_or(id)
}

/// Text as one segment of a path.
pub(super) fn encode(text: &str) -> PercentEncode<'_> {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, KEPT)
}

pub(super) fn decode(segment: &str) -> Result<String, Refusal> {
    match percent_decode_str(segment).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Refusal::malformed("the path is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_segment_and_for_one_of_a_group_may_be_two() {
        let route = |path| find(&Method::GET, path).ok();
        let circuit = |id: &str| Some(Route::Circuit(id.to_owned()));
        assert_eq!(route("/api/v1/circuits/inventory"), circuit("inventory"));
        assert_eq!(route("/api/v1/circuits/hosts%2Fa%252Fb"), circuit("hosts/a%2Fb"));
        assert_eq!(route("/api/v1/circuits/hosts/a%2Fb"), circuit("hosts/a%2Fb"));
        assert_eq!(route("/api/v1/circuits/hosts/override"), circuit("hosts/override"));
        let head = find(&Method::HEAD, "/api/v1/circuits/hosts/override").ok();
        assert_eq!(head, circuit("hosts/override"));
        assert_eq!(
            find(&Method::POST, "/api/v1/circuits/hosts/a%2fb/reset").ok(),
            Some(Route::Steer(Target::Reset("hosts/a%2Fb".into())))
        );
        assert_eq!(route("/api/v1/circuits/a/b/c"), None);
        assert_eq!(route("/api/v1/circuits/%FF"), None);
    }

    #[test]
    fn what_is_under_api_is_guarded_whether_it_is_there_or_not() {
        for path in ["/api", "/api/", "/api/v1/nothing", "/api//v1/circuits", "/metrics"] {
            assert!(is_guarded(path), "{path}");
        }
        for path in ["/", "/app.js", "/livez", "/readyz", "/apis"] {
            assert!(!is_guarded(path), "{path}");
        }
    }
}
