//! The configuration: read, checked, and written where a person did not.

mod settings;

pub use self::settings::{
    Admin, History, Protocol, Respond, Retry, Route, Server, Service, Settings, Target, TargetKind,
    Template, Timeouts, Upstream, WhenOpen,
};
