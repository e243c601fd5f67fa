//! The gRPC services `stacks.Echo` and `stacks.Bystander`: their messages,
//! clients ([`echo_client::EchoClient`]) and servers
//! ([`echo_server::EchoServer`]).

/// Asks for the text to be sent back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EchoRequest {
    /// The text.
    #[prost(string, tag = "1")]
    pub text: String,
    /// How many messages a server stream is to have.
    #[prost(uint32, tag = "2")]
    pub count: u32,
}

impl EchoRequest {
    /// A request for one message.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), count: 1 }
    }
}

/// The text sent back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EchoReply {
    /// The text.
    #[prost(string, tag = "1")]
    pub text: String,
}

pub use self::generated::{bystander_client, bystander_server, echo_client, echo_server};

#[expect(clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/stacks.Echo.rs"));
    include!(concat!(env!("OUT_DIR"), "/stacks.Bystander.rs"));
}
