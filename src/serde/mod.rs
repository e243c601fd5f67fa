//! In and out by `serde`'s traits (feature `serde`).
//!
//! What a person writes, a [`Config`](crate::Config), and what outlives the
//! process, [`Saved`](crate::Saved), goes both ways, with durations such as
//! `"10s"`. What a page shows goes out only: durations are
//! milliseconds there, in fields that end in `_ms`, and words are in
//! `snake_case`.

mod config;
#[cfg(feature = "registry")]
mod event;
mod object;
mod saved;
mod shown;
mod value;
