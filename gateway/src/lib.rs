//! `brk`: a reverse proxy with a circuit in front of every service.
//!
//! `config` reads what a person wrote, `gateway` puts it to work, `proxy`
//! carries the requests, `admin` shows and steers over HTTP, `cli` does so from
//! a terminal, `history` remembers and `notify` tells.

pub mod admin;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod history;
pub mod notify;
pub mod proxy;
mod seldom;
pub mod serve;
