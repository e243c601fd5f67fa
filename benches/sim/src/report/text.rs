//! The parts of the report that no simulation writes.

pub(super) const HEAD: &str = "\
# What the defaults do to a dependency in trouble

Simulated, in virtual time: clients that call at random times, a breaker at each, one dependency that fails in many ways.
tower-breaker is the real thing, driven through its public API. The peers are models of their documentation, at its
defaults. Everything below is written by

```sh
cargo run --release --package tower-breaker-sim
```

which takes some minutes and gives the same bytes every time. Each scenario is run five times, with the seeds 1 to 5; a
number is the median of the five, but for openings and blips, which are rare: those are means. In run *i* an outage lasts
from 0.8 to 1.2 times its length, because a fixed length flatters the breaker whose waits happen to end with it. The charts
show the run with seed 1.

`cargo test --package tower-breaker-sim` holds the defaults to what is claimed here, on smaller runs.

";

pub(super) const COMPARISON: &str = "\
## Beside the peers

Bold: better than tower-breaker, by more than anybody would choose a breaker by.

";

pub(super) const EXCEPTIONS: &str = "
Where a peer is better, and why that is left so:

";

pub(super) const TARGETS: &str = "\
## What must be reached

| | settings | limit | reached | |
|---|---|--:|--:|---|
";

pub(super) const DEFINITIONS: &str = "\
## How each number is defined

| number | definition |
|---|---|
";

pub(super) const MODEL: &str = "\
## The model

**Clients** call at exponentially distributed intervals, each with a stream of random numbers of its own that depends on the
seed alone: every breaker meets the same arrivals. Each client has its own breaker. A call that takes longer than 1 s has
failed; where retries are said, a failed call is tried again at once, and a refused one is not.

**The dependency** answers within 5 ms and an exponentially distributed 15 ms, and an error comes after 5 ms. Where it has
limits (cold start, storm) it is 25 workers of 20 ms, exponentially distributed, so 1,250 calls a second for a demand of
1,000, and a queue, of 1,000 calls at the cold start; what does not fit gets an error after 1 ms. It works on calls that nobody waits for any more, because it
does not know.

**The breakers** see a healthy dependency for 130 s before an outage, a storm, a cold start or steady errors (600 s at 0.5 calls/s), which
fills the longest window there is, and for at least 30 s before a blip, a dead shard or a hang.

| | opens | waits | closes |
|---|---|---|---|
| tower-breaker | 50 % of the last 20 calls, at least 10, for 1 s | about 1, 2, 4, 8 s, ±20 % | three probes succeed |
| resilience4j | 50 % of the last 100 calls, or all slower than 60 s | 60 s | fewer than half of 10 probes fail |
| Hystrix | 50 % of 10 s in 10 buckets, at least 20, looked at every 500 ms | 5 s | one probe succeeds |
| Polly | 10 % of 30 s in 10 buckets, at least 100 | 5 s | one probe succeeds |
| Linkerd | 7 failures in a row | 1 s, doubling to 60 s, up to half of it added at random | one probe succeeds |
| SRE throttle | never; refuses with probability (requests − 2 × accepts) / (requests + 1) over 2 min | | |

A late result counts in whatever state it meets at the peers; at tower-breaker it is stale. Buckets and snapshots begin at a
random instant, another at every client.

**What is left out**: networks that lose calls, load balancers, clients that come and go, service times with a heavy tail,
and whatever else Hystrix, Polly, resilience4j and Linkerd would do beside breaking.
";
