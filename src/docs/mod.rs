//! Longer reads, apart from the reference.

#[cfg(feature = "keyed")]
#[doc = include_str!("keyed.md")]
pub mod keyed {}

#[doc = include_str!("order_of_layers.md")]
pub mod order_of_layers {}
