//! A breaker that errs, where axum allows no error.

use axum::{Router, routing::get};
use tower_breaker::{CircuitBreakerLayer, Config};

fn main() {
    let breaker = CircuitBreakerLayer::new(Config::default());
    let _: Router = Router::new().route("/", get(async || "hello")).layer(breaker);
}
