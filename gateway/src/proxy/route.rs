//! Which service a request is for.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crate::gateway::Service;

/// An index into a table's services, by host and prefix.
#[derive(Debug, Default)]
pub(super) struct Routes {
    by_host: HashMap<String, Vec<Entry>>,
    any_host: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    prefix: String,
    service: usize,
}

impl Routes {
    pub(super) fn new(services: &[Arc<Service>]) -> Routes {
        let mut routes = Routes::default();
        for (service, route) in services.iter().map(|service| &service.settings.route).enumerate() {
            routes.add(route.host.clone(), route.prefix.clone(), service);
        }
        routes
    }

    fn add(&mut self, host: Option<String>, prefix: String, service: usize) {
        let entries = match host {
            Some(host) => self.by_host.entry(host).or_default(),
            None => &mut self.any_host,
        };
        // The longest first, and of equals the one that came first.
        let at = entries.partition_point(|entry| entry.prefix.len() >= prefix.len());
        entries.insert(at, Entry { prefix, service });
    }

    /// The service's index. Routes with the host come before those without one,
    /// however long their prefixes are.
    pub(super) fn find(&self, host: Option<&str>, path: &str) -> Option<usize> {
        let of_host = host.filter(|_| !self.by_host.is_empty()).and_then(|host| {
            let entries = self.by_host.get(&*canonical(host))?;
            longest(entries, path)
        });
        of_host.or_else(|| longest(&self.any_host, path))
    }
}

/// In lower case and without the root's dot.
fn canonical(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn longest(entries: &[Entry], path: &str) -> Option<usize> {
    let entry = entries.iter().find(|entry| is_within(path, &entry.prefix))?;
    Some(entry.service)
}

/// Whether the path is the prefix, or goes on at a boundary of segments.
fn is_within(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || prefix == "/" || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(entries: &[(&str, &str)]) -> Routes {
        let mut routes = Routes::default();
        for (service, (host, prefix)) in entries.iter().enumerate() {
            let host = (!host.is_empty()).then(|| host.to_string());
            routes.add(host, prefix.to_string(), service);
        }
        routes
    }

    #[test]
    fn a_prefix_ends_at_a_boundary_of_segments() {
        let routes = routes(&[("", "/a"), ("", "/a/b")]);
        assert_eq!(routes.find(None, "/a"), Some(0));
        assert_eq!(routes.find(None, "/a/"), Some(0));
        assert_eq!(routes.find(None, "/a/c"), Some(0));
        assert_eq!(routes.find(None, "/a/b"), Some(1));
        assert_eq!(routes.find(None, "/a/b/c"), Some(1));
        assert_eq!(routes.find(None, "/a/bc"), Some(0));
        assert_eq!(routes.find(None, "/ab"), None);
        assert_eq!(routes.find(None, "/"), None);
        assert_eq!(routes.find(None, "*"), None);
    }

    #[test]
    fn a_route_with_the_host_beats_a_longer_one_without() {
        let routes = routes(&[("", "/a/b"), ("api.example", "/a"), ("", "/")]);
        assert_eq!(routes.find(Some("api.example"), "/a/b"), Some(1));
        assert_eq!(routes.find(Some("API.Example."), "/a/b"), Some(1));
        assert_eq!(routes.find(Some("api.example"), "/c"), Some(2));
        assert_eq!(routes.find(Some("other.example"), "/a/b"), Some(0));
        assert_eq!(routes.find(None, "/x"), Some(2));
    }
}
