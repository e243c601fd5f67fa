//! Settings as a file that says all of it.

use std::{fmt::Display, path::Path, time::Duration};

use http::HeaderMap;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};
use tower_breaker::Config;

use super::{
    settings::{Protocol, Respond, Service, Settings, Target, TargetKind, Upstream, WhenOpen},
    size,
};

impl Settings {
    /// Whether all is the same but, perhaps, for the services.
    pub(crate) fn same_but_services(&self, other: &Self) -> bool {
        let Self { server, admin, history, notify, services: _ } = self;
        *server == other.server
            && *admin == other.admin
            && *history == other.history
            && *notify == other.notify
    }

    /// As one file, with every default written: it reads as the same settings.
    pub fn to_toml(&self) -> String {
        let Self { server, admin, history, notify, services } = self;
        let mut root = Table::new();

        let mut table = Table::new();
        table["listen"] = list(server.listen.iter().map(ToString::to_string));
        table["workers"] = whole(server.workers);
        table["max_connections"] = whole(server.max_connections);
        table["header_timeout"] = human(server.header_timeout);
        table["max_header_size"] = text(size::format(server.max_header_size));
        table["drain"] = human(server.drain);
        table["trusted_proxies"] = list(server.trusted_proxies.iter().map(ToString::to_string));
        table["breaker_headers"] = server.breaker_headers.into();
        root["server"] = Item::Table(table);

        let mut table = Table::new();
        table["listen"] = text(admin.listen);
        table["hosts"] = list(admin.hosts.iter().cloned());
        table["state"] = path(&admin.state);
        root["admin"] = Item::Table(table);

        let mut table = Table::new();
        table["events"] = human(history.events);
        table["minutes"] = human(history.minutes);
        root["history"] = Item::Table(table);

        if !notify.is_empty() {
            let targets: ArrayOfTables = notify.iter().map(target).collect();
            root["notify"] = Item::ArrayOfTables(targets);
        }
        if !services.is_empty() {
            let mut table = Table::new();
            table.set_implicit(true);
            for (name, service) in services {
                table[name] = Item::Table(service.to_table());
            }
            root["services"] = Item::Table(table);
        }
        DocumentMut::from(root).to_string()
    }
}

impl Service {
    /// As its file in `services.d` would be with every default written.
    pub fn to_toml(&self) -> String {
        DocumentMut::from(self.to_table()).to_string()
    }

    /// Whether it is written the same, and what is read from files is, too.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.to_toml() == other.to_toml()
            && (&self.upstream, &self.when_open) == (&other.upstream, &other.when_open)
    }

    pub(crate) fn has_same_circuit(&self, other: &Self) -> bool {
        circuit(&self.circuit).to_string() == circuit(&other.circuit).to_string()
    }

    fn to_table(&self) -> Table {
        let mut table = Table::new();
        if let Some(host) = &self.route.host {
            table["host"] = text(host);
        }
        table["path"] = text(&self.route.prefix);
        table["strip_prefix"] = self.route.strip_prefix.into();
        table["upgrade"] = self.upgrade.into();
        table["protect"] = self.protect.into();
        table["until_end_of_body"] = self.until_end_of_body.into();
        if let Some(duration) = self.slow_is_failure {
            table["slow_is_failure"] = human(duration);
        }
        table["upstream"] = upstream(&self.upstream).into();
        let mut timeouts = Table::new();
        timeouts["connect"] = human(self.timeouts.connect);
        timeouts["head"] = human(self.timeouts.head);
        timeouts["body_idle"] = human(self.timeouts.body_idle);
        if let Some(total) = self.timeouts.total {
            timeouts["total"] = human(total);
        }
        table["timeouts"] = Item::Table(timeouts);
        if let Some(retry) = &self.retry {
            let mut table_of_retry = Table::new();
            table_of_retry["attempts"] = whole(retry.attempts as usize);
            table_of_retry["budget"] = retry.budget.into();
            table["retry"] = Item::Table(table_of_retry);
        }
        table["circuit"] = Item::Table(circuit(&self.circuit));
        table["when_open"] = Item::Table(when_open(&self.when_open));
        table
    }
}

fn text(text: impl Display) -> Item {
    text.to_string().into()
}

/// In days and parts of one: months and years are not whole days.
fn human(duration: Duration) -> Item {
    const DAY: u64 = 24 * 60 * 60;
    let days = duration.as_secs() / DAY;
    let rest = duration - Duration::from_secs(days * DAY);
    let rest_in_words = humantime::format_duration(rest);
    match (days, rest) {
        (0, _) => text(rest_in_words),
        (days, Duration::ZERO) => text(format_args!("{days}days")),
        (days, _) => text(format_args!("{days}days {rest_in_words}")),
    }
}

fn path(path: &Path) -> Item {
    text(path.display())
}

fn whole(number: usize) -> Item {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

fn list(items: impl Iterator<Item = String>) -> Item {
    items.collect::<Array>().into()
}

/// Tables within go inline.
fn inline(table: Table) -> Value {
    let inline: InlineTable = table.into_inline_table();
    Value::InlineTable(inline)
}

fn upstream(upstream: &Upstream) -> Value {
    let mut table = Table::new();
    table["url"] = text(&upstream.url);
    table["protocol"] = text(match upstream.protocol {
        Protocol::Auto => "auto",
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
    });
    table["preserve_host"] = upstream.preserve_host.into();
    if let Some(file) = &upstream.ca_file {
        table["ca_file"] = path(file);
    }
    table["max_idle"] = whole(upstream.max_idle);
    inline(table)
}

/// What `Config` writes of itself, but for the name, which is the service's.
fn circuit(config: &Config) -> Table {
    let written = toml::to_string(config).unwrap_or_default();
    let parsed = written.parse::<DocumentMut>().ok();
    let mut table = Table::new();
    for (key, item) in parsed.map(DocumentMut::into_table).unwrap_or_default() {
        match item {
            _ if key == "name" => {}
            Item::Table(within) => table[&*key] = inline(within).into(),
            item => table[&*key] = item,
        }
    }
    table
}

fn when_open(when_open: &WhenOpen) -> Table {
    let mut table = Table::new();
    match when_open {
        WhenOpen::Respond(answer) => table["respond"] = respond(answer).into(),
        WhenOpen::Fallback(other) => table["fallback"] = upstream(other).into(),
        WhenOpen::Stale { ttl, max_size, respond: answer } => {
            let mut stale = Table::new();
            stale["ttl"] = human(*ttl);
            stale["max_size"] = text(size::format(*max_size));
            table["stale"] = inline(stale).into();
            table["respond"] = respond(answer).into();
        }
        WhenOpen::Close => table["close"] = true.into(),
    }
    table
}

fn respond(answer: &Respond) -> Value {
    let mut table = Table::new();
    table["status"] = whole(answer.status.as_u16().into());
    table["retry_after"] = answer.retry_after.into();
    if !answer.headers.is_empty() {
        table["headers"] = inline(headers(&answer.headers)).into();
    }
    if let Some(body) = &answer.body {
        table["body"] = text(&body.source);
        table["content_type"] = text(&body.content_type);
    }
    inline(table)
}

fn headers(headers: &HeaderMap) -> Table {
    let mut table = Table::new();
    for name in headers.keys() {
        // As they were read.
        let values = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        table[name.as_str()] = list(values);
    }
    table
}

fn target(target: &Target) -> Table {
    let mut table = Table::new();
    table["name"] = text(&target.name);
    let mut kind = Table::new();
    let key = match &target.kind {
        TargetKind::Webhook { url, secret_file } => {
            kind["url"] = text(url);
            if let Some(file) = secret_file {
                kind["secret_file"] = path(file);
            }
            "webhook"
        }
        TargetKind::Slack { url_file } => {
            kind["url_file"] = path(url_file);
            "slack"
        }
        TargetKind::Email { server, password_file, ca_file, from, to } => {
            kind["server"] = text(server);
            if let Some(file) = password_file {
                kind["password_file"] = path(file);
            }
            if let Some(file) = ca_file {
                kind["ca_file"] = path(file);
            }
            kind["from"] = text(from);
            kind["to"] = list(to.iter().cloned());
            "email"
        }
    };
    table[key] = inline(kind).into();
    table["services"] = list(target.services.iter().cloned());
    table["hold_down"] = human(target.hold_down);
    table["cooldown"] = human(target.cooldown);
    table["flapping"] = whole(target.flapping as usize);
    table
}
