//! Writes the glue of the gRPC services: clients and server traits for messages
//! written by hand, so that no `protoc` is needed.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type("crate::proto::EchoRequest")
            .output_type("crate::proto::EchoReply")
            .codec_path("tonic_prost::ProstCodec")
    };
    let echo = Service::builder()
        .name("Echo")
        .package("stacks")
        .method(method("unary", "Unary").build())
        .method(method("server_stream", "ServerStream").server_streaming().build())
        .method(method("client_stream", "ClientStream").client_streaming().build())
        .method(method("bidi", "Bidi").client_streaming().server_streaming().build())
        .build();
    let bystander = Service::builder()
        .name("Bystander")
        .package("stacks")
        .method(method("unary", "Unary").build())
        .build();
    Builder::new().compile(&[echo, bystander]);
}
