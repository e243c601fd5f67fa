//! A service whose error is no error.

use http::{Request, Response};
use tower::{Layer, Service, service_fn};
use tower_breaker::{CircuitBreakerLayer, Config};

struct Refused;

fn serve(_: impl Service<Request<()>>) {}

fn main() {
    let inner = service_fn(async |_: Request<()>| Err::<Response<()>, _>(Refused));
    serve(CircuitBreakerLayer::new(Config::default()).layer(inner));
}
