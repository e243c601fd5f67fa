//! The data path: from a caller's request to an upstream and back.

mod stop;

pub use self::stop::{Stop, Stopper};
