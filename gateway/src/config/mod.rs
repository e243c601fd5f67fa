//! The configuration: read, checked, and written where a person did not.

mod atomic;
mod circuit;
mod error;
mod load;
mod reader;
mod sections;
mod service;
pub mod services_d;
mod settings;
mod size;
mod template;
mod written;

pub(crate) use self::{
    atomic::{NO_LINK, hand_over, write as write_atomically},
    load::{Sources, sweep},
    service::http_url,
    settings::here,
    template::Compiled,
};
pub use self::{
    error::{Error, Problem},
    load::{admin, init, load},
    settings::{
        Admin, History, Protocol, Respond, Retry, Route, Server, Service, Settings, Target,
        TargetKind, Template, Timeouts, Upstream, WhenOpen,
    },
};
