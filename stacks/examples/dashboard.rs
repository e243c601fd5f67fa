//! A gateway with three dependencies that have their troubles, and the page on
//! which an operator sees why, and steers.
//!
//! ```sh
//! cargo run -p tower-breaker-stacks --example dashboard
//! ```
//!
//! Open the address it prints: the first opens within half a minute. Or make
//! trouble yourself with the commands beside it. With `-- calm` there is no
//! trouble but yours; with a number there are as many more circuits.

use std::{
    collections::HashMap,
    future::IntoFuture,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{Request, StatusCode, Uri},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    time::{interval, sleep, timeout},
};
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_breaker::{AdminIdentity, AdminService, Config, ConfigBuilder, Outcome, Registry};
use tower_breaker_stacks::server::{Caller, serve_axum};

/// How long connections have to end when the gateway does.
const GRACE: Duration = Duration::from_secs(1);

/// Asks a dependency, through its breaker.
type Dependency = BoxCloneSyncService<(), StatusCode, BoxError>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let registry = Registry::new();
    let circuit = |name| Config::builder(name).measure_latency();
    let rules = [
        (circuit("inventory"), 20),
        (circuit("payments").slow_calls(Duration::from_millis(400), 0.5), 30),
        (circuit("search").ramp(Duration::from_secs(15)), 40),
    ];

    let (mut dependencies, mut upstreams, mut traffic) = (HashMap::new(), Vec::new(), Vec::new());
    for (config, per_second) in rules {
        let upstream = Upstream::start().await?;
        let (name, dependency) = protected(&registry, config, &upstream.url)?;
        traffic.push((name.clone(), per_second));
        upstreams.push((name.clone(), upstream));
        dependencies.insert(name, dependency);
    }

    let (operator, viewer) = (token(), token());
    let admin = AdminService::builder(&registry)
        .bearer_token(AdminIdentity::operator("alice"), &operator)
        .bearer_token(AdminIdentity::viewer("the wallboard"), &viewer)
        .base_path("/admin")
        .build()?;
    let gateway = Router::new()
        .route("/{dependency}", get(answer))
        .with_state(dependencies)
        .nest_service("/admin", admin.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, gateway).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let mut server = tokio::spawn(server.into_future());

    println!("to see and to steer: {url}/admin/#token={operator}");
    println!("to see only:         {url}/admin/#token={viewer}\n");
    for (name, Upstream { url, .. }) in &upstreams {
        println!("trouble for {name}: curl -X POST {url}failing (or hanging, well)");
    }
    for (name, per_second) in traffic {
        tokio::spawn(call(format!("{url}/{name}"), per_second));
    }
    if let Some(more) = asked.iter().find_map(|word| word.parse().ok()) {
        rehearse(&registry, more)?;
    }
    if !asked.iter().any(|word| word == "calm") {
        tokio::spawn(trouble(upstreams));
    }
    tokio::signal::ctrl_c().await?;
    // Every stream that is read ends at once, and so do connections at rest. One
    // that nobody reads does not: it is given a while, and goes with the runtime.
    admin.shutdown();
    let _ = stop.send(());
    if timeout(GRACE, &mut server).await.is_err() {
        server.abort();
    }
    Ok(())
}

/// A client of an upstream, with a breaker around it, by its name.
fn protected(
    registry: &Registry,
    config: ConfigBuilder,
    url: &str,
) -> Result<(String, Dependency), BoxError> {
    let url: Uri = url.parse()?;
    let breaker = registry.layer(config.build()?)?;
    let name = breaker.circuit().name().to_owned();
    let client = ServiceBuilder::new()
        .map_request(move |()| {
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.uri_mut() = url.clone();
            request
        })
        .map_response(|response: http::Response<_>| response.status())
        .layer(breaker)
        .timeout(Duration::from_secs(1))
        .service(Client::builder(TokioExecutor::new()).build_http());
    Ok((name, BoxCloneSyncService::new(client)))
}

/// The gateway's answer is the dependency's, or says why there is none.
async fn answer(
    Path(name): Path<String>,
    State(dependencies): State<HashMap<String, Dependency>>,
) -> (StatusCode, String) {
    let Some(dependency) = dependencies.get(&name) else {
        return (StatusCode::NOT_FOUND, format!("there is no {name}"));
    };
    match dependency.clone().oneshot(()).await {
        Ok(status) => (status, name),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// Calls the gateway, so many times a second.
async fn call(url: String, per_second: u32) {
    let caller = Caller::http1();
    let mut pace = interval(Duration::from_secs(1) / per_second);
    loop {
        pace.tick().await;
        let (caller, url) = (caller.clone(), url.clone());
        // What becomes of it is for the page to show.
        tokio::spawn(async move { caller.get(&url).await.is_ok() });
    }
}

/// How an upstream feels.
#[derive(Clone, Copy)]
enum Mood {
    Well,
    Failing,
    Hanging,
}

/// A server on loopback that has moods.
struct Upstream {
    url: String,
    mood: watch::Sender<Mood>,
}

impl Upstream {
    async fn start() -> Result<Self, BoxError> {
        let mood = watch::Sender::new(Mood::Well);
        let router = Router::new()
            .route("/", get(work))
            .route("/{mood}", post(change))
            .with_state(mood.clone());
        Ok(Self { url: format!("{}/", serve_axum(router).await?), mood })
    }
}

/// Takes 5 to 45 ms, as a rule.
async fn work(State(mood): State<watch::Sender<Mood>>) -> StatusCode {
    let mood = *mood.borrow();
    sleep(Duration::from_millis(5 + random() % 16 + random() % 25)).await;
    match mood {
        Mood::Well => StatusCode::OK,
        Mood::Failing => StatusCode::INTERNAL_SERVER_ERROR,
        Mood::Hanging => std::future::pending().await,
    }
}

async fn change(Path(to): Path<String>, State(mood): State<watch::Sender<Mood>>) -> StatusCode {
    mood.send_replace(match to.as_str() {
        "well" => Mood::Well,
        "failing" => Mood::Failing,
        "hanging" => Mood::Hanging,
        _ => return StatusCode::NOT_FOUND,
    });
    StatusCode::NO_CONTENT
}

/// One after the other falls ill, and gets well again.
async fn trouble(upstreams: Vec<(String, Upstream)>) {
    loop {
        for ((_, Upstream { mood, .. }), ill) in
            upstreams.iter().zip([Mood::Failing, Mood::Hanging, Mood::Failing])
        {
            sleep(Duration::from_secs(15)).await;
            mood.send_replace(ill);
            sleep(Duration::from_secs(20)).await;
            mood.send_replace(Mood::Well);
        }
    }
}

/// More circuits, with calls that only pretend: for a look at a long list.
fn rehearse(registry: &Registry, more: usize) -> Result<(), BoxError> {
    let circuits = (0..more).map(|number| {
        let config = Config::builder(format!("tenant-{number:04}")).measure_latency().build()?;
        Ok(registry.circuit(config)?)
    });
    let circuits = circuits.collect::<Result<Vec<_>, BoxError>>()?;
    tokio::spawn(async move {
        let mut pace = interval(Duration::from_millis(500));
        loop {
            pace.tick().await;
            for circuit in &circuits {
                if let Ok(permit) = circuit.try_acquire() {
                    let is_good = random() % 20 < 19;
                    permit.record(if is_good { Outcome::Success } else { Outcome::Failure });
                }
            }
        }
    });
    Ok(())
}

/// Good enough for a demonstration. A program has its tokens from where it has
/// its other secrets.
fn token() -> String {
    format!("{:016x}{:016x}", random(), random())
}

fn random() -> u64 {
    RandomState::new().hash_one(())
}
