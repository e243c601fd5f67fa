//! Longer reads, apart from the reference.

#[cfg(feature = "admin")]
#[doc = include_str!("admin.md")]
pub mod admin {}

#[doc = include_str!("fallbacks.md")]
pub mod fallbacks {}
#[cfg(feature = "keyed")]
#[doc = include_str!("keyed.md")]
pub mod keyed {}

#[doc = include_str!("order_of_layers.md")]
pub mod order_of_layers {}

#[doc = include_str!("shadow.md")]
pub mod shadow {}
