//! What may be kept, for how long, and what it may answer: the rules of
//! RFC 9111 and RFC 5861 as arithmetic on headers.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{
        AGE, AUTHORIZATION, CONNECTION, DATE, ETAG, EXPIRES, HOST, IF_MATCH, IF_UNMODIFIED_SINCE,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE, VARY,
    },
    uri::Authority,
};

use super::directives::{CacheControl, age, split};

/// Whose responses are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Of anybody, for anybody.
    Shared,
    /// Of one user, for that one.
    Private,
}

/// What a request has to do with what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Its response may be kept, and replaced by what is.
    Get,
    /// What is kept may answer it, without the body.
    Head,
    /// It changes the resource, so that what is kept is out of date.
    Unsafe,
}

impl Role {
    pub(super) fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET => Some(Self::Get),
            Method::HEAD => Some(Self::Head),
            Method::OPTIONS | Method::TRACE | Method::CONNECT => None,
            _ => Some(Self::Unsafe),
        }
    }
}

/// What a response is kept under: the full URI but for its scheme, which the
/// request to a server may have or not, by the version of HTTP. Its authority
/// may be in `host`. Nothing, if nobody knows where a request goes.
pub(super) fn key(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => host(headers)?,
    };
    // Who asks may be in there, too, and has a name of any case.
    let (who, host) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Some(format!("{who}{}{path}", host.to_ascii_lowercase()))
}

/// The one that a request names, or nothing in place of it. What is more than
/// a host (`shop/docs`) would be taken for a part of the path.
fn host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match hosts.next() {
        Some(host) => host.to_str().ok()?,
        None => "",
    };
    let is_host = host.is_empty() || !host.contains('@') && host.parse::<Authority>().is_ok();
    (is_host && hosts.next().is_none()).then_some(host)
}

/// How long a response lives, from its birth at the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// How old it was when its request was sent. (It cannot have been born
    /// later than that and be this old when it came.)
    pub(super) age: Duration,
    /// For how long it is fresh.
    pub(super) fresh: Duration,
    /// For how long after that it may answer in place of an error.
    pub(super) stale: Duration,
}

impl Life {
    /// That of a response to this request, or `None` if it must not be kept or
    /// could never answer.
    pub(super) fn of(
        request: &HeaderMap,
        response: &HeaderMap,
        audience: Audience,
        ttl: Duration,
    ) -> Option<Self> {
        let said = CacheControl::of(response);
        let is_shared = audience == Audience::Shared;
        let may_be_shared = said.public || said.must_revalidate || said.s_maxage.is_some();
        let is_personal = said.private || request.contains_key(AUTHORIZATION) && !may_be_shared;
        let is_barred = said.no_store
            || said.no_cache
            || is_shared && is_personal
            || response.contains_key(SET_COOKIE)
            || CacheControl::of(request).no_store;
        if is_barred {
            return None;
        }
        let asks_again =
            said.must_revalidate || is_shared && (said.proxy_revalidate || said.s_maxage.is_some());
        let life = Self {
            age: age(response),
            fresh: match said.s_maxage.filter(|_| is_shared).or(said.max_age) {
                Some(age) => age,
                None => until_expiry(response),
            },
            stale: if asks_again { Duration::ZERO } else { said.stale_if_error.unwrap_or(ttl) },
        };
        life.answers_at(life.age).then_some(life)
    }

    /// Whether it may answer when it is this old.
    pub(super) fn answers_at(&self, age: Duration) -> bool {
        age < self.fresh.saturating_add(self.stale)
    }
}

/// Whether a request would take an answer that has been stale for so long.
pub(super) fn accepts(request: &HeaderMap, stale_for: Duration) -> bool {
    let said = CacheControl::of(request);
    // A part, or something to do only if nothing has changed, is between the
    // caller and the origin.
    let is_for_the_origin =
        [RANGE, IF_MATCH, IF_UNMODIFIED_SINCE].iter().any(|name| request.contains_key(name));
    // How fresh it would like it to be does not matter: there is an error.
    !said.no_cache
        && !is_for_the_origin
        && said.stale_if_error.is_none_or(|bound| stale_for <= bound)
}

/// Whether the response to a GET or a HEAD says that the resource is something
/// else now, or nothing any more.
pub(super) fn supersedes(status: StatusCode) -> bool {
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED => false,
        StatusCode::NOT_FOUND | StatusCode::GONE => true,
        status => status.is_success() || status.is_redirection(),
    }
}

/// What RFC 5861 calls an error.
pub(super) fn is_server_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// The fields of a request that a response was chosen by, with their values.
pub(super) type Selection = Vec<(HeaderName, Vec<HeaderValue>)>;

/// Those that `vary` names, or `None` if nobody knows what the response was
/// chosen by.
pub(super) fn selection(request: &HeaderMap, response: &HeaderMap) -> Option<Selection> {
    let mut selection = Selection::new();
    for name in response.get_all(VARY).iter().flat_map(|value| split(value.as_bytes())) {
        let name = name.trim_ascii();
        if name.is_empty() {
            continue;
        }
        // A star is no name.
        let name = HeaderName::from_bytes(name).ok().filter(|name| name != "*")?;
        if selection.iter().all(|(known, _)| *known != name) {
            let values = request.get_all(&name).iter().map(copied).collect();
            selection.push((name, values));
        }
    }
    selection.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    Some(selection)
}

/// Whether a request would have been given the same response.
pub(super) fn selects(selection: &Selection, request: &HeaderMap) -> bool {
    selection.iter().all(|(name, values)| request.get_all(name).iter().eq(values))
}

/// The headers as they are kept: copied, without those of the connection they
/// came by and without the age, which will be another, but with a date.
pub(super) fn kept_headers(response: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(response.len() + 1);
    for (name, value) in response {
        headers.append(name, copied(value));
    }
    let named: Vec<HeaderName> = response
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| split(value.as_bytes()))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let of_the_connection = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-authentication-info"),
        HeaderName::from_static("proxy-connection"),
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        AGE,
    ];
    for name in of_the_connection.iter().chain(&named) {
        headers.remove(name);
    }
    if !headers.contains_key(DATE) {
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(today())) {
            headers.insert(DATE, date);
        }
    }
    headers
}

/// The same value on its own. As it came it may be a slice of all that was read
/// from a connection at once, and keep that.
fn copied(value: &HeaderValue) -> HeaderValue {
    let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) else { return value.clone() };
    copy.set_sensitive(value.is_sensitive());
    copy
}

/// What is kept, told anew by a 304 that is of the same representation: by a
/// strong validator, the other kind proving too little.
pub(super) fn freshened(kept: &HeaderMap, not_modified: &HeaderMap) -> Option<HeaderMap> {
    let tag = not_modified.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""))?;
    if kept.get(ETAG) != Some(tag) {
        return None;
    }
    let mut headers = kept.clone();
    let news = kept_headers(not_modified);
    for name in news.keys().filter(|name| !name.as_str().starts_with("content-")) {
        headers.remove(name);
        for value in news.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    // For the time it has taken so far; what is kept says none.
    headers.extend(not_modified.get(AGE).map(|age| (AGE, age.clone())));
    Some(headers)
}

/// For how long `expires` makes a response fresh, taken against its own `date`,
/// so that clocks need not agree. What is no date has passed.
fn until_expiry(headers: &HeaderMap) -> Duration {
    let date = |name| {
        let value: Option<&HeaderValue> = headers.get(name);
        value.and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok())
    };
    let Some(expires) = date(EXPIRES) else { return Duration::ZERO };
    expires.duration_since(date(DATE).unwrap_or_else(today)).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "a date on the wire is of the calendar")]
fn today() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(100);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Fresh and stale seconds in a shared and in a private store.
    fn lives(
        request: &[(&'static str, &str)],
        response: &[(&'static str, &str)],
    ) -> [Option<(u64, u64)>; 2] {
        [Audience::Shared, Audience::Private].map(|audience| {
            Life::of(&headers(request), &headers(response), audience, TTL)
                .map(|life| (life.fresh.as_secs(), life.stale.as_secs()))
        })
    }

    fn life(response: &[(&'static str, &str)]) -> [Option<(u64, u64)>; 2] {
        lives(&[], response)
    }

    fn says(cache_control: &str) -> [Option<(u64, u64)>; 2] {
        life(&[("cache-control", cache_control)])
    }

    #[test]
    fn what_says_nothing_is_kept_for_the_layers_own_time() {
        assert_eq!(life(&[]), [Some((0, 100)); 2]);
    }

    #[test]
    fn a_response_bounds_its_own_time_after_it_was_fresh() {
        assert_eq!(says("max-age=60"), [Some((60, 100)); 2]);
        assert_eq!(says("max-age=60, stale-if-error=600"), [Some((60, 600)); 2]);
        assert_eq!(says("stale-if-error=7"), [Some((0, 7)); 2]);
        assert_eq!(says("max-age=60, stale-if-error=0"), [Some((60, 0)); 2]);
        assert_eq!(says("max-age=0, stale-if-error=0"), [None; 2]);
    }

    #[test]
    fn an_expiry_is_taken_against_the_responses_own_date() {
        const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let expires = |value| life(&[DATE, ("expires", value)]);
        assert_eq!(expires("Sun, 06 Nov 1994 08:50:07 GMT"), [Some((30, 100)); 2]);
        assert_eq!(expires("Sun, 06 Nov 1994 08:49:07 GMT"), [Some((0, 100)); 2]);
        assert_eq!(expires("0"), [Some((0, 100)); 2]);
        let both =
            [DATE, ("expires", "Sun, 06 Nov 1994 08:50:07 GMT"), ("cache-control", "max-age=5")];
        assert_eq!(life(&both), [Some((5, 100)); 2]);
    }

    #[test]
    fn some_are_never_kept() {
        for said in ["no-store", "no-cache", "no-store, max-age=60", "no-cache=\"x\", max-age=60"] {
            assert_eq!(says(said), [None; 2], "{said}");
        }
        assert_eq!(life(&[("set-cookie", "id=7"), ("cache-control", "public")]), [None; 2]);
        assert_eq!(lives(&[("cache-control", "no-store")], &[]), [None; 2]);
        assert_eq!(life(&[("age", "100")]), [None; 2], "it is too old already");
        assert_eq!(life(&[("age", "99")]), [Some((0, 100)); 2]);
    }

    #[test]
    fn what_is_private_is_for_one_user() {
        assert_eq!(says("private"), [None, Some((0, 100))]);
        assert_eq!(says("private, max-age=60"), [None, Some((60, 100))]);
    }

    #[test]
    fn what_took_an_authorization_must_say_that_it_may_be_shared() {
        let request = [("authorization", "Bearer abc")];
        let lives = |said| lives(&request, &[("cache-control", said)]);
        assert_eq!(lives("max-age=60"), [None, Some((60, 100))]);
        assert_eq!(lives("public, max-age=60"), [Some((60, 100)); 2]);
        assert_eq!(lives("must-revalidate, max-age=60"), [Some((60, 0)); 2]);
        assert_eq!(lives("s-maxage=60"), [Some((60, 0)), Some((0, 100))]);
    }

    /// Then it is good for an error only while it is fresh.
    #[test]
    fn some_must_not_be_served_stale() {
        assert_eq!(says("must-revalidate"), [None; 2]);
        assert_eq!(says("must-revalidate, max-age=60, stale-if-error=9"), [Some((60, 0)); 2]);
        assert_eq!(says("proxy-revalidate, max-age=60"), [Some((60, 0)), Some((60, 100))]);
        assert_eq!(says("s-maxage=30, max-age=60"), [Some((30, 0)), Some((60, 100))]);
    }

    #[test]
    fn it_answers_until_its_time_is_over_and_not_at_the_end_of_it() {
        let life = Life { age: secs(0), fresh: secs(60), stale: secs(10) };
        assert!(life.answers_at(secs(70) - Duration::from_nanos(1)));
        assert!(!life.answers_at(secs(70)));
        let endless = Life { stale: Duration::MAX, ..life };
        assert!(endless.answers_at(secs(u64::MAX - 1)));
    }

    #[test]
    fn a_request_may_refuse_what_is_kept() {
        let accepts = |pairs: &[_], stale_for| accepts(&headers(pairs), secs(stale_for));
        assert!(accepts(&[], 1_000));
        assert!(accepts(&[("cache-control", "max-age=0")], 1_000));
        assert!(!accepts(&[("cache-control", "no-cache")], 0));
        assert!(!accepts(&[("pragma", "no-cache")], 0));
        assert!(accepts(&[("cache-control", "stale-if-error=10")], 10));
        assert!(!accepts(&[("cache-control", "stale-if-error=10")], 11));
        for name in ["range", "if-match", "if-unmodified-since"] {
            assert!(!accepts(&[(name, "x")], 0), "{name}");
        }
        assert!(accepts(&[("if-none-match", "\"x\"")], 0));
    }

    #[test]
    fn the_key_is_the_full_uri_wherever_its_authority_is() {
        let key = |uri: &str, host: &[_]| key(&uri.parse().unwrap(), &headers(host)).unwrap();
        assert_eq!(key("http://Shop.example/a?b=c", &[]), "shop.example/a?b=c");
        assert_eq!(key("/a?b=c", &[("host", "Shop.example")]), "shop.example/a?b=c");
        assert_ne!(key("/a", &[("host", "one")]), key("/a", &[("host", "other")]));
        assert_eq!(key("http://shop", &[]), "shop/");
    }

    /// Or a request could be kept, or make something forgotten, where another
    /// resource is.
    #[test]
    fn a_host_that_is_none_makes_no_key() {
        let uri = "/index.html".parse().unwrap();
        let of = |hosts: &[_]| key(&uri, &headers(hosts));
        assert_eq!(of(&[("host", "shop.example:80")]).unwrap(), "shop.example:80/index.html");
        assert_eq!(of(&[("host", "[::1]:80")]).unwrap(), "[::1]:80/index.html");
        assert_eq!(of(&[("host", "")]), of(&[]), "as one without an authority says it");
        for host in ["shop/docs", "shop?x=", "shop#", "shop ", "a@shop", "sh%6Fp", "sh\u{f6}p"] {
            assert_eq!(of(&[("host", host)]), None, "{host}");
        }
        assert_eq!(of(&[("host", "shop"), ("host", "other")]), None);
        assert_eq!(of(&[("host", ""), ("host", "other")]), None);
    }

    /// A name and a password are not what the host is.
    #[test]
    fn only_the_host_is_the_same_in_any_case() {
        let key = |uri: &str| key(&uri.parse().unwrap(), &HeaderMap::new()).unwrap();
        assert_eq!(key("http://Ann:pW@Shop.example/a"), "Ann:pW@shop.example/a");
        assert_ne!(key("http://ann@shop/a"), key("http://Ann@shop/a"));
        assert_ne!(key("http://ann@shop/a"), key("http://shop/a"));
    }

    #[test]
    fn a_response_answers_those_whose_headers_select_it() {
        let request = [("accept", "a"), ("accept", "b"), ("cookie", "x")];
        let chosen = |vary: &[(&'static str, &str)]| selection(&headers(&request), &headers(vary));
        let some = chosen(&[("vary", "Accept, accept-language,"), ("vary", "ACCEPT")]).unwrap();
        assert!(selects(&some, &headers(&[("accept", "a"), ("accept", "b"), ("cookie", "y")])));
        assert!(!selects(&some, &headers(&[("accept", "a")])));
        assert!(!selects(&some, &headers(&[("accept", "b"), ("accept", "a")])));
        let german = ("accept-language", "de");
        assert!(!selects(&some, &headers(&[("accept", "a"), ("accept", "b"), german])));
        assert!(selects(&chosen(&[]).unwrap(), &headers(&[])));
        assert_eq!(chosen(&[("vary", "*")]), None);
        assert_eq!(chosen(&[("vary", "accept"), ("vary", "cookie, *")]), None);
        assert_eq!(chosen(&[("vary", "no name")]), None);
    }

    #[test]
    fn what_belongs_to_the_connection_is_not_kept() {
        let kept = kept_headers(&headers(&[
            ("connection", "keep-alive, X-Hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("age", "5"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("etag", "\"7\""),
        ]));
        let mut names: Vec<_> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["date", "etag"]);
        assert!(kept_headers(&HeaderMap::new()).contains_key("date"));
    }

    #[test]
    fn a_304_of_the_same_representation_tells_it_anew() {
        let kept = [
            ("etag", "\"7\""),
            ("x-old", "1"),
            ("cache-control", "max-age=1"),
            ("content-type", "a/b"),
        ];
        let told = |news: &[_]| freshened(&headers(&kept), &headers(news));
        let anew = told(&[
            ("etag", "\"7\""),
            ("cache-control", "public"),
            ("cache-control", "max-age=2"),
            ("content-type", "c/d"),
            ("connection", "close"),
        ]);
        let anew = anew.unwrap();
        assert_eq!(anew.get_all("cache-control").iter().count(), 2);
        assert_eq!(
            (&anew["x-old"], &anew["content-type"]),
            (&"1".parse().unwrap(), &"a/b".parse().unwrap())
        );
        assert!(!anew.contains_key("connection"));
        for tag in ["\"8\"", "W/\"7\"", "7"] {
            assert_eq!(told(&[("etag", tag)]), None, "{tag}");
        }
        assert_eq!(told(&[]), None);
        let weak = headers(&[("etag", "W/\"7\"")]);
        assert_eq!(freshened(&weak, &weak), None);
    }

    #[test]
    fn roles_and_statuses() {
        assert_eq!(Role::of(&Method::GET), Some(Role::Get));
        assert_eq!(Role::of(&Method::HEAD), Some(Role::Head));
        assert_eq!(Role::of(&Method::OPTIONS), None);
        for method in ["POST", "PUT", "DELETE", "PATCH", "PURGE"] {
            assert_eq!(Role::of(&method.parse().unwrap()), Some(Role::Unsafe), "{method}");
        }
        let all = |is: fn(StatusCode) -> bool| -> Vec<u16> {
            let codes = [200, 204, 206, 301, 304, 400, 401, 404, 410, 429, 500, 501, 502, 503, 504];
            codes.into_iter().filter(|code| is(StatusCode::from_u16(*code).unwrap())).collect()
        };
        assert_eq!(all(supersedes), [204, 301, 404, 410]);
        assert_eq!(all(is_server_error), [500, 502, 503, 504]);
    }
}
