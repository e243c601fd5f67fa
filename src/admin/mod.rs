//! Circuits shown and steered over HTTP (feature `admin`), as a plain Tower
//! service.
//!
//! A request goes through `service`: it was meant for this host (`host`), asks
//! for something there is (`route`), comes from somebody who may (`auth`), and
//! not by way of another site's page (`host`). What is read is put together in
//! `view`, what steers is a `command`, a `stream` tells what happens, and a
//! `resource` is the application's own. Every answer gets its head from `answer`.

mod answer;
mod auth;
mod body;
mod builder;
mod command;
mod cursor;
mod fields;
mod host;
mod list;
mod page;
mod places;
mod pulse;
mod refusal;
mod resource;
mod route;
mod sentence;
mod service;
mod sse;
mod stream;
mod time;
mod view;

pub use self::{
    auth::AdminIdentity,
    body::AdminBody,
    builder::{AdminAccess, AdminBuilder},
    refusal::Refusal as AdminRefusal,
    resource::AdminRequest,
    service::{AdminFuture, AdminService},
};
