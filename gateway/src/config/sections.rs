//! What is there once: `[server]`, `[admin]`, `[history]` and the `[[notify]]`.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use http::Uri;
use ipnet::IpNet;
use lettre::message::Mailbox;

use super::{
    reader::{Place, Table, Value},
    service,
    settings::{Admin, History, Server, Target, TargetKind},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn server(mut table: Table<'_>) -> Server {
    let listen = match table.take("listen") {
        Some(value) => {
            let place = value.place().clone();
            let listen = value.one_or_more(Value::address);
            if listen.as_ref().is_some_and(Vec::is_empty) {
                let message = "is empty, but must have an address such as \"127.0.0.1:8080\"";
                table.source().note(&place, "server.listen", message);
            }
            listen.unwrap_or_default()
        }
        None => vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
    };
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let count = |table: &mut Table<'_>, key, most: u64| {
        table.get(key, |value| value.whole(1..most + 1)).map(|count| count as usize)
    };
    let workers = count(&mut table, "workers", 1_024).unwrap_or_else(processors);
    let max_connections = count(&mut table, "max_connections", 10_000_000).unwrap_or(16_384);
    let header_timeout = table.get("header_timeout", |value| value.duration(false));
    let max_header_size = table.get("max_header_size", |value| value.size(8 << 10));
    let drain = table.get("drain", |value| value.duration(true));
    let trusted_proxies = table.get("trusted_proxies", |value| value.one_or_more(network));
    let breaker_headers = table.get("breaker_headers", Value::flag);
    table.finish();
    Server {
        listen,
        workers,
        max_connections,
        header_timeout: header_timeout.unwrap_or(Duration::from_secs(10)),
        max_header_size: max_header_size.unwrap_or(64 << 10),
        drain: drain.unwrap_or(Duration::from_secs(30)),
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        breaker_headers: breaker_headers.unwrap_or(true),
    }
}

/// An address is a network of one.
fn network(value: Value<'_>) -> Option<IpNet> {
    value.parsed("a network such as \"10.0.0.0/8\" or an address", |text| {
        let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
        address.or_else(|_| text.parse::<IpNet>()).map_err(|_| "")
    })
}

/// The second is where `listen` stands, if it does.
pub(super) fn admin(mut table: Table<'_>, base: &Path) -> (Admin, Option<Place>) {
    let listen = table.take("listen");
    let place = listen.as_ref().map(|value| value.place().clone());
    let listen = listen.and_then(Value::address);
    let hosts = table.get("hosts", |value| value.one_or_more(Value::text));
    let state = table.get("state", |value| {
        value.parsed("a directory", |path| match path {
            "" => Err(""),
            path => Ok(base.join(path)),
        })
    });
    table.finish();
    let admin = Admin {
        listen: listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9090))),
        hosts: hosts.unwrap_or_default(),
        state: state
            .unwrap_or_else(|| state_directory(|name| env::var_os(name).map(PathBuf::from))),
    };
    (admin, place)
}

/// Where systemd says, or where a user's programs keep theirs, or the machine's.
fn state_directory(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let of_user = || {
        let own = absolute("HOME").filter(|home| home != Path::new("/root"));
        absolute("XDG_STATE_HOME").or(own.map(|home| home.join(".local/state")))
    };
    // Of several the first is the unit's own.
    let of_unit = variable("STATE_DIRECTORY").and_then(|paths| {
        let first = paths.to_str()?.split(':').next().map(PathBuf::from);
        first.filter(|path| path.is_absolute())
    });
    of_unit
        .or_else(|| of_user().map(|state| state.join("brk")))
        .unwrap_or_else(|| "/var/lib/brk".into())
}

pub(super) fn history(mut table: Table<'_>) -> History {
    let events = table.get("events", |value| value.duration(false)).unwrap_or(90 * DAY);
    let minutes = table.get("minutes", |value| value.duration(false)).unwrap_or(7 * DAY);
    table.finish();
    History { events, minutes }
}

/// A target, and where it stands.
pub(super) fn target(value: Value<'_>, base: &Path) -> Option<(Target, Place)> {
    let place = value.place().clone();
    let mut table = value.table()?;
    let name = table.need("name", "\"ops\"").and_then(|value| {
        let right = "1 to 57 letters, digits, `.`, `_` or `-`";
        value.parsed(right, |name| {
            let is_right = (1..=57).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if is_right { Ok(name.to_owned()) } else { Err("") }
        })
    });
    let kinds = [
        table.take("webhook").map(|value| webhook(value, base)),
        table.take("slack").map(|value| slack(value, base)),
        table.take("email").map(|value| email(value, base)),
    ];
    if kinds.iter().flatten().count() != 1 {
        table.refuse("", "must have one of the keys `webhook`, `slack` and `email`");
    }
    let services = table.get("services", |value| value.one_or_more(Value::text));
    let hold_down = table.get("hold_down", |value| value.duration(true));
    let cooldown = table.get("cooldown", |value| value.duration(true));
    let flapping = table.get("flapping", |value| value.whole(1..10_001));
    table.finish();
    let target = Target {
        name: name?,
        kind: kinds.into_iter().flatten().next()??,
        services: services.unwrap_or_default(),
        hold_down: hold_down.unwrap_or(Duration::from_secs(10)),
        cooldown: cooldown.unwrap_or(Duration::from_secs(300)),
        flapping: flapping.map_or(5, |openings| openings as u32),
    };
    Some((target, place))
}

fn webhook(value: Value<'_>, base: &Path) -> Option<TargetKind> {
    if value.is_text() {
        return Some(TargetKind::Webhook { url: web_url(value)?, secret_file: None });
    }
    let mut table = value.table()?;
    let url = table.need("url", "\"https://hooks.example.com/brk\"").and_then(web_url);
    let secret_file = table.take("secret_file").map(|value| secret(value, base));
    table.finish();
    Some(TargetKind::Webhook { url: url?, secret_file: asked(secret_file)? })
}

/// Nothing if nobody asked for it; `None` if what they wrote is wrong.
fn asked<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(value) => value.map(Some),
        None => Some(None),
    }
}

fn web_url(value: Value<'_>) -> Option<Uri> {
    value.parsed("a URL such as \"https://hooks.example.com/brk\"", service::web_url)
}

fn slack(value: Value<'_>, base: &Path) -> Option<TargetKind> {
    let mut table = value.table()?;
    let url_file = table.need("url_file", "\"/etc/brk/slack.url\"");
    let url_file = url_file.and_then(|value| {
        value.parsed("a file with a URL in it", |path| {
            let path = base.join(path);
            let url = secret_in(&path)?;
            match service::web_url(url.trim()) {
                Ok(_) => Ok(path),
                // Not what it says: that is a secret.
                Err(_) => Err(format!("{}: what is in it is none", path.display())),
            }
        })
    });
    table.finish();
    Some(TargetKind::Slack { url_file: url_file? })
}

fn email(value: Value<'_>, base: &Path) -> Option<TargetKind> {
    let mut table = value.table()?;
    let server = table
        .need("server", "\"smtps://brk@mail.example.com\"")
        .and_then(|value| value.parsed("a server such as \"smtps://brk@mail.example.com\"", smtp));
    let password_file = table.take("password_file").map(|value| secret(value, base));
    // What is in it is read again for each mail.
    let ca_file = table.take("ca_file").map(|value| Some(service::ca_file(value, base)?.0));
    let from = table.need("from", "\"brk@example.com\"").and_then(mailbox);
    let to = table.need("to", "[\"ops@example.com\"]");
    let place = to.as_ref().map(|to| to.place().clone());
    let to = to.and_then(|value| value.one_or_more(mailbox));
    if let (Some(place), Some([])) = (place, to.as_deref()) {
        table.source().note(&place, &table.key("to"), "is empty, but must have an address");
    }
    table.finish();
    let (password_file, ca_file) = (asked(password_file)?, asked(ca_file)?);
    Some(TargetKind::Email { server: server?, password_file, ca_file, from: from?, to: to? })
}

fn smtp(text: &str) -> Result<String, &'static str> {
    let rest = text.strip_prefix("smtp://").or_else(|| text.strip_prefix("smtps://"));
    let Some(rest) = rest else { return Err("it begins with smtp:// or smtps://") };
    let (user, _) = rest.rsplit_once('@').unwrap_or(("", rest));
    if user.contains(':') {
        return Err("the password goes into a `password_file`");
    }
    let authority = text.parse::<Uri>().ok().and_then(|url| url.into_parts().authority);
    match authority {
        Some(authority) if !authority.host().is_empty() => Ok(text.to_owned()),
        _ => Err(""),
    }
}

fn mailbox(value: Value<'_>) -> Option<String> {
    value.parsed("an address such as \"Ops <ops@example.com>\"", |text| {
        text.parse::<Mailbox>().map(|_| text.to_owned()).map_err(|_| "")
    })
}

fn secret(value: Value<'_>, base: &Path) -> Option<PathBuf> {
    value.parsed("a file with a secret in it", |path| {
        let path = base.join(path);
        secret_in(&path).map(|_| path)
    })
}

/// What is in a secret's file, if only who should can read it.
fn secret_in(path: &Path) -> Result<String, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let secret = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    if secret.trim().is_empty() {
        return Err(wrong(&"it is empty"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        let mode = fs::metadata(path).map_err(|error| wrong(&error))?.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(wrong(&format_args!(
                "everybody on the machine has access to it (mode {mode:04o}); chmod it to 0600"
            )));
        }
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_where_the_system_keeps_such() {
        for (variables, expected) in [
            (&[("STATE_DIRECTORY", "/a/brk:/b"), ("HOME", "/home/a")][..], "/a/brk"),
            (&[("XDG_STATE_HOME", "/x"), ("HOME", "/home/a")], "/x/brk"),
            (&[("XDG_STATE_HOME", "relative"), ("HOME", "/home/a")], "/home/a/.local/state/brk"),
            (&[("HOME", "/root")], "/var/lib/brk"),
            (&[], "/var/lib/brk"),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, path)| PathBuf::from(path))
            };
            assert_eq!(state_directory(variable), Path::new(expected), "{variables:?}");
        }
    }
}
