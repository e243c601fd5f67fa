//! What the tests and examples of the stacks share.

pub mod echo;
pub mod proto;
pub mod server;
pub mod upstream;
