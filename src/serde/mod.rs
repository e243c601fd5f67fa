//! In and out by `serde`'s traits (feature `serde`).
//!
//! What a person writes, a [`Config`](crate::Config), goes both ways, with
//! durations such as `"10s"`. What a page shows goes out only: durations are
//! milliseconds there, in fields that end in `_ms`, and words are in
//! `snake_case`.

mod config;
#[cfg(feature = "registry")]
mod event;
mod object;
mod shown;
mod value;
