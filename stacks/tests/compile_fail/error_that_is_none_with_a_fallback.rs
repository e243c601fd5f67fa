//! A service whose error is no error, behind a breaker with a fallback.

use http::{Request, Response};
use tower::{Layer, Service, service_fn};
use tower_breaker::{CircuitBreakerLayer, Config, service_unavailable};

struct Refused;

fn serve(_: impl Service<Request<()>>) {}

fn main() {
    let inner = service_fn(async |_: Request<()>| Err::<Response<String>, _>(Refused));
    let breaker = CircuitBreakerLayer::new(Config::default()).fallback(service_unavailable);
    serve(breaker.layer(inner));
}
