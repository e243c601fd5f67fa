//! Longer reads, apart from the reference.

#[doc = include_str!("fallbacks.md")]
pub mod fallbacks {}
#[doc = include_str!("order_of_layers.md")]
pub mod order_of_layers {}
