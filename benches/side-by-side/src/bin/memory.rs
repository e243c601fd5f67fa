//! What each contender takes of the heap: allocations a call, and bytes a circuit.
//!
//! A binary of its own, because the counting allocator would cost those time who
//! allocate. It prints a line a contender, of fields between tabs: name,
//! allocations a call closed, with a tenth of failures and open, bytes of a
//! circuit with its service when new and after 1,000 calls. Then a line a count
//! window that is full, with the bytes of its circuit.

use allocation_counter::measure;
use tower_breaker_side_by_side::{
    backend::{Ask, Request},
    contenders::{self, Contender, HOUR},
    driver::Guarded,
    windows,
};

const CALLS: u64 = 10_000;
const CIRCUITS: u16 = 100;

fn main() -> Result<(), std::io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let _entered = runtime.enter();
    for contender in contenders::all() {
        let [closed, tenth] = [Ask::Answer, Ask::TenthFails]
            .map(|ask| allocations(&mut *contender.closed(), Request::new(ask)));
        let open = allocations(&mut *contender.open(HOUR), Request::new(Ask::Answer));
        let (idle, used) = bytes(&contender);
        println!("{}\t{closed:.2}\t{tenth:.2}\t{open:.2}\t{idle}\t{used}", contender.name);
    }
    for calls in windows::COUNTS {
        let mut full = None;
        let bytes = measure(|| full = Some(windows::count(calls))).bytes_current;
        println!("{}\t{bytes}", windows::count_name(calls));
    }
    Ok(())
}

/// A call, once what comes with the first calls is there.
fn allocations(service: &mut dyn Guarded, request: Request) -> f64 {
    service.run(request, 1_000);
    let counted = measure(|| {
        service.run(request, CALLS);
    });
    counted.count_total as f64 / CALLS as f64
}

fn bytes(contender: &Contender) -> (i64, i64) {
    // What all circuits share is made with the first.
    let mut first = contender.closed();
    first.run(Request::new(Ask::TenthFails), 1_000);

    let circuits = i64::from(CIRCUITS);
    let mut made = Vec::with_capacity(CIRCUITS.into());
    let idle = measure(|| made.extend((0..CIRCUITS).map(|_| contender.closed()))).bytes_current;
    let more = measure(|| {
        for service in &mut made {
            service.run(Request::new(Ask::TenthFails), 1_000);
        }
    });
    (idle / circuits, (idle + more.bytes_current) / circuits)
}
