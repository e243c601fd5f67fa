//! Recordings, and what other rules would have done with them.

mod histories;

use std::time::{Duration, SystemTime};

use histories::{Log, Step, history, rules, run};
use proptest::{collection::vec, prelude::*};
use tower_breaker::{
    Backoff, Circuit, Config, ConfigBuilder, ManualClock, Outcome, Outcomes, Probes, Recorder,
    Recording, Report, Start, State,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const PLENTY: usize = 1 << 20;

/// A circuit that is recorded.
fn recorded(config: ConfigBuilder, clock: &ManualClock, recorder: &Recorder) -> Circuit {
    Circuit::new(config.clock(clock).recorder(recorder).build().unwrap())
}

fn transitions(report: &Report) -> Vec<String> {
    let text = |t: &tower_breaker::Replayed| {
        let tower_breaker::Replayed { at, from, to, cause, window, open_for, .. } = t;
        format!("{at:?} {from} {to} {cause:?} {window:?} {open_for:?}")
    };
    report.transitions.iter().map(text).collect()
}

fn file(recording: &Recording) -> Vec<u8> {
    let mut file = Vec::new();
    recording.write_to(&mut file).unwrap();
    file
}

/// What a recording looks like after ten calls, two of them refused.
fn short_recording() -> Recording {
    let clock = ManualClock::new();
    let recorder = Recorder::new(PLENTY);
    let circuit = recorded(Config::builder("a").consecutive_failures(8), &clock, &recorder);
    for _ in 0..10 {
        clock.advance(7 * MILLI);
        if let Ok(permit) = circuit.try_acquire() {
            clock.advance(3 * MILLI);
            permit.record(Outcome::Failure);
        }
    }
    recorder.recording()
}

proptest! {
    #[test]
    fn the_rules_that_were_recorded_do_again_what_they_did(
        live in rules("live"), history in history()
    ) {
        let clock = ManualClock::new();
        let recorder = Recorder::new(PLENTY);
        let log = Log::default();
        let circuit = recorded(live.clone().observer(log.clone()), &clock, &recorder);
        let born = clock.now();
        run(&circuit, &clock, &history);
        // A recording ends with its last call. What time has done by itself is
        // told at a touch.
        drop(circuit.try_acquire());
        let recording = recorder.recording();
        circuit.reset();
        let mut expected = log.since(born);
        expected.retain(|transition| !transition.contains("Reset"));

        let recording = Recording::read_from(&*file(&recording)).unwrap();
        let report = recording.replay(live.build().unwrap());
        prop_assert_eq!(transitions(&report), expected);
        prop_assert_eq!(report.passed.total(), recording.calls());
        prop_assert_eq!(report.would_reject, Outcomes::default());
        prop_assert_eq!(report.unknown.passed, 0);
        prop_assert_eq!(report.unknown.rejected, recording.rejections());
    }

    /// But for calls that begin within the same nanosecond with nothing between:
    /// their order is not recorded.
    #[test]
    fn a_replay_does_what_a_shadow_did(
        live in rules("live"), candidate in rules("candidate"), history in history()
    ) {
        let apart = |step| match step {
            Step::Begin => vec![Step::Begin, Step::Advance(Duration::from_nanos(1))],
            other => vec![other],
        };
        let history: Vec<_> = history.into_iter().flat_map(apart).collect();
        let clock = ManualClock::new();
        let recorder = Recorder::new(PLENTY);
        let log = Log::default();
        let shadow = candidate.clone().observer(log.clone()).build().unwrap();
        let circuit = recorded(live.shadow(shadow), &clock, &recorder);
        let born = clock.now();
        run(&circuit, &clock, &history);

        let report = recorder.recording().replay(candidate.build().unwrap());
        let shadow = circuit.shadows()[0].snapshot();
        prop_assert_eq!(report.passed, shadow.passed);
        prop_assert_eq!(report.would_reject, shadow.would_reject);
        prop_assert_eq!(report.unknown, shadow.unknown);
        let told = log.since(born);
        prop_assert_eq!(transitions(&report), told);
    }

    #[test]
    fn a_recording_survives_a_file(live in rules("live"), history in history()) {
        let clock = ManualClock::new();
        let recorder = Recorder::new(PLENTY);
        run(&recorded(live, &clock, &recorder), &clock, &history);
        let recording = recorder.recording();
        let mut file = file(&recording);
        file.extend(b"and more");
        let mut rest = &*file;
        prop_assert_eq!(Recording::read_from(&mut rest).unwrap(), recording);
        prop_assert_eq!(rest, b"and more", "it stops behind the recording");
    }

    #[test]
    fn a_damaged_file_is_refused_at_a_byte_of_it(
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = file(&short_recording());
        let mut damaged = whole.clone();
        for (index, byte) in damage {
            *index.get_mut(&mut damaged[..]) = byte;
        }
        if damaged != whole {
            let mut read = None;
            let allocated = allocation_counter::measure(|| {
                read = Some(Recording::read_from(&*damaged));
            });
            let error = read.unwrap().expect_err("the checksums do not match");
            prop_assert!(error.offset() <= whole.len() as u64, "{}", error);
            prop_assert!(allocated.bytes_max < 2 << 20, "{:?}", allocated);
        }
        let cut = &whole[..cut.index(whole.len())];
        let error = Recording::read_from(cut).unwrap_err();
        prop_assert!(error.offset() <= cut.len() as u64);
        prop_assert!(error.to_string().ends_with("cut off"), "{}", error);
    }

    #[test]
    fn any_bytes_are_no_recording(bytes in vec(any::<u8>(), 0..200)) {
        let file = [&b"tbreaker\x01"[..], &bytes].concat();
        prop_assert!(Recording::read_from(&*file).is_err());
        prop_assert!(Recording::read_from(&*bytes).is_err());
    }
}

/// The format is a promise: files of today are read tomorrow. The wall clock's
/// time and the jitter's seed are not in it.
#[test]
fn the_format_is_what_it_was() {
    let file = file(&short_recording());
    assert!(file.starts_with(b"tbreaker\x01"));
    let records = |hex: &str| {
        file.windows(hex.len() / 2).any(|window| {
            window.iter().map(|byte| format!("{byte:02x}")).collect::<String>() == hex
        })
    };
    // 10 ms after the circuit was made, a failure (1) that took 3 ms.
    assert!(records("81e89226c08db701"));
    // At once after the last: closed (0) to open (1), for eight failures.
    assert!(records(&format!(
        "86e89226000001{:02x}{}",
        20,
        "consecutive-failures".bytes().map(|b| format!("{b:02x}")).collect::<String>()
    )));
    // 7 ms on, a refusal.
    assert!(records("85fcd91a"));
    // The end: a zero, and a checksum over the others.
    assert_eq!(file[file.len() - 5], 0);
}

#[test]
fn the_bound_holds_and_what_is_dropped_is_told() {
    for bytes in [0, 20_000, 100_000] {
        let clock = ManualClock::new();
        let recorder = Recorder::new(bytes);
        let circuit = recorded(Config::builder("a"), &clock, &recorder);
        let mut made = 0;
        for wait in (0..40_000u64).map(|n| n * n % 1_000) {
            clock.advance(Duration::from_micros(wait));
            let permit = circuit.try_acquire().unwrap();
            clock.advance(Duration::from_micros(wait * 7));
            permit.record(Outcome::Success);
            made += 1;
            if made % 997 == 0 {
                let recording = recorder.recording();
                assert!(recording.bytes() <= bytes.max(16_384));
                assert_eq!(recording.calls() + recording.dropped(), made);
            }
        }
        let recording = recorder.recording();
        assert!(recording.dropped() > 0);
        assert!(recording.bytes() > bytes.max(16_384) * 3 / 4, "{recording:?}");
        assert!(recording.starts_at() > Duration::ZERO);
        // They are the last: what is left reaches to the end.
        let report = recording.replay(Config::default());
        assert_eq!(report.passed.success, recording.calls());
        assert_eq!(report.ends_at, recording.ends_at());
        assert_eq!(Recording::read_from(&*file(&recording)).unwrap(), recording);
    }
}

#[test]
fn a_call_takes_at_most_nine_bytes() {
    // A call in 20 ms, 1,000 a second, to the nanosecond.
    let clock = ManualClock::new();
    let recorder = Recorder::new(PLENTY);
    let circuit = recorded(Config::builder("a"), &clock, &recorder);
    let mut running = std::collections::VecDeque::new();
    for n in 0..5_000u64 {
        clock.advance(Duration::from_nanos(800_000 + n * 7_919 % 400_000));
        running.push_back(circuit.try_acquire().unwrap());
        if running.len() == 20 {
            running.pop_front().unwrap().record(Outcome::Success);
        }
    }
    drop(running);
    let recording = recorder.recording();
    let each = recording.bytes() as f64 / recording.calls() as f64;
    assert!(each < 9.0, "{each}");
}

#[test]
fn recording_allocates_nothing_once_its_memory_is_in_use() {
    let clock = ManualClock::new();
    let recorder = Recorder::new(0);
    let circuit = recorded(Config::builder("a"), &clock, &recorder);
    let call = || {
        clock.advance(MILLI);
        circuit.try_acquire().unwrap().record(Outcome::Success);
    };
    (0..5_000).for_each(|_| call());
    let counted = allocation_counter::measure(|| (0..5_000).for_each(|_| call()));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn a_stale_or_lapsed_call_is_recorded_as_it_went() {
    let clock = ManualClock::new();
    let recorder = Recorder::new(PLENTY);
    let config = Config::builder("a")
        .consecutive_failures(1)
        .open_for(tower_breaker::Backoff::fixed(MILLI))
        .probes(tower_breaker::Probes::new(1).lease(2 * MILLI));
    let circuit = recorded(config, &clock, &recorder);
    let late = circuit.try_acquire().unwrap();
    circuit.try_acquire().unwrap().record(Outcome::Failure);
    clock.advance(MILLI);
    let probe = circuit.try_acquire().unwrap();
    clock.advance(5 * MILLI);
    probe.record(Outcome::Success);
    late.record(Outcome::Success);
    assert_eq!(circuit.snapshot().totals.stale, 1);

    // The lease ended at 3 ms; it was told of at 6 ms.
    let changes = recorder.recording().transitions();
    let changes: Vec<_> = changes.into_iter().map(|t| (t.at.as_millis(), t.from, t.to)).collect();
    assert_eq!(
        changes,
        [
            (0, State::Closed, State::Open),
            (1, State::Open, State::HalfOpen),
            (3, State::HalfOpen, State::Open)
        ]
    );
    let lenient = Config::builder("lenient").build().unwrap();
    let report = recorder.recording().replay(lenient);
    assert_eq!((report.passed.success, report.passed.failure), (2, 1));
}

#[test]
fn a_report_says_what_was_saved_and_for_how_long() {
    // Healthy for 1 s, dead for 3 s, healthy for 2 s; a call in 10 ms, which
    // takes 5 ms. Nothing live refuses.
    let clock = ManualClock::new();
    let recorder = Recorder::new(PLENTY);
    let circuit = recorded(
        Config::builder("live").consecutive_failures(u32::MAX).no_failure_rate(),
        &clock,
        &recorder,
    );
    for n in 0..600 {
        clock.advance(5 * MILLI);
        let permit = circuit.try_acquire().unwrap();
        clock.advance(5 * MILLI);
        let is_dead = (100..400).contains(&n);
        permit.record(if is_dead { Outcome::Failure } else { Outcome::Success });
    }
    let candidate = Config::builder("candidate")
        .no_failure_rate()
        .consecutive_failures(10)
        .open_for(tower_breaker::Backoff::fixed(500 * MILLI))
        .probes(tower_breaker::Probes::new(1));
    let report = recorder.recording().replay(candidate.build().unwrap());

    // It opens at the tenth failure, at 1.1 s. Each wait of 500 ms ends 5 ms
    // before a call begins that fails 5 ms later, so it opens again each 510 ms
    // but 10: at 1.61, 2.12, 2.63, 3.14 and 3.65 s. The probe of 4.155 s
    // succeeds.
    let opened: Vec<_> =
        report.transitions.iter().filter(|t| t.to == State::Open).map(|t| t.at).collect();
    let expected = [1_100, 1_610, 2_120, 2_630, 3_140, 3_650].map(Duration::from_millis);
    assert_eq!(opened, expected);
    assert_eq!(report.opened(), 6);
    assert_eq!(report.transitions.last().unwrap().at, Duration::from_millis(4_160));
    // From 1.1 s to 4.155 s, but for the 5 ms of five probes.
    assert_eq!(report.time_open, Duration::from_millis(3_055 - 5 * 5));
    assert_eq!(report.time_half_open, Duration::from_millis(6 * 5));
    assert_eq!(report.passed.failure, 15);
    assert_eq!(report.would_reject.failure, 285);
    assert_eq!(report.would_reject.success, 15, "those before the last probe");
    assert_eq!(report.load_saved(), Some(0.5));
    let said = report.to_string();
    assert!(said.starts_with("candidate: would have opened 6 times, for 3.0s of 6.0s\n"), "{said}");
    assert!(said.contains("passed 300 calls, 15 failures among them"), "{said}");
    assert!(said.contains("would have refused 300: 285 that failed and 15 that did not"), "{said}");
}

#[test]
fn a_candidate_that_starts_open_is_open_from_the_start() {
    let clock = ManualClock::new();
    let recorder = Recorder::new(PLENTY);
    let circuit = recorded(Config::builder("a"), &clock, &recorder);
    for _ in 0..10 {
        clock.advance(10 * MILLI);
        circuit.try_acquire().unwrap().record(Outcome::Success);
    }
    let replay = |wait| {
        let candidate = Config::builder("b").start(Start::Open).open_for(Backoff::fixed(wait));
        let report = recorder.recording().replay(candidate.probes(Probes::new(2)).build().unwrap());
        (report.opened(), report.time_open, report.time_half_open)
    };
    // Calls come at tens: the first that passes is at 60, the second closes.
    assert_eq!(replay(55 * MILLI), (0, 60 * MILLI, 10 * MILLI));
    assert_eq!(replay(500 * MILLI), (0, 100 * MILLI, Duration::ZERO));
}

/// Its records of the time before are dropped, and not that of a call that began then.
#[test]
fn no_state_lasts_longer_than_the_recording() {
    let clock = ManualClock::new();
    let recorder = Recorder::new(0);
    let circuit = recorded(Config::builder("a"), &clock, &recorder);
    clock.advance(100 * SECOND);
    let long = circuit.try_acquire().unwrap();
    for _ in 0..10_000 {
        clock.advance(SECOND);
        circuit.try_acquire().unwrap().record(Outcome::Success);
    }
    long.record(Outcome::Success);
    let recording = recorder.recording();
    assert!(recording.dropped() > 0);
    let probes = Probes::new(2).lease(100_000 * SECOND);
    let candidate = Config::builder("b").start(Start::Open).open_for(Backoff::fixed(60 * SECOND));
    let report = recording.replay(candidate.probes(probes).build().unwrap());
    let lasted = report.ends_at - report.starts_at;
    assert!(report.transitions[0].at < report.starts_at);
    assert!(report.time_open + report.time_half_open <= lasted, "{report:?}");
}

#[test]
fn what_was_refused_is_unknown_and_changes_nothing() {
    let recording = short_recording();
    assert_eq!((recording.calls(), recording.rejections()), (8, 2));
    let never = Config::builder("never").no_failure_rate().consecutive_failures(9).build().unwrap();
    let report = recording.replay(never);
    assert_eq!((report.unknown.passed, report.unknown.rejected), (2, 0));
    assert_eq!(report.passed.failure, 8);
    assert_eq!(report.opened(), 0);
    let at_once = Config::builder("at-once").consecutive_failures(1).build().unwrap();
    let report = recording.replay(at_once);
    assert_eq!((report.unknown.passed, report.unknown.rejected), (0, 2));
    assert_eq!(report.would_reject.failure, 7);
    let own: Vec<_> = recording.transitions().into_iter().map(|t| (t.at, t.to, t.cause)).collect();
    assert_eq!(own, [(80 * MILLI, State::Open, "consecutive-failures".to_owned())]);
}

#[test]
fn a_replay_tells_the_candidates_observers_nothing() {
    let log = Log::default();
    let candidate = Config::builder("candidate").consecutive_failures(1).observer(log.clone());
    let report = short_recording().replay(candidate.build().unwrap());
    assert_eq!(report.opened(), 1);
    assert!(log.since(ManualClock::new().now()).is_empty());
}

#[test]
fn a_recorder_without_a_circuit_is_empty_and_records_the_first() {
    let recorder = Recorder::new(PLENTY);
    assert_eq!(recorder.recording().calls(), 0);
    let config = Config::builder("first").recorder(&recorder).build().unwrap();
    let circuits = [Circuit::new(config.clone()), Circuit::new(config)];
    for circuit in &circuits {
        circuit.try_acquire().unwrap().record(Outcome::Success);
    }
    assert_eq!(recorder.recording().calls(), 1);
    assert_eq!(recorder.recording().name(), "first");
    assert_eq!(recorder.recording().replay(Config::default()).passed.success, 1);
}

#[test]
fn a_report_that_cannot_be_written_is_no_report() {
    use std::fmt::{Error, Result, Write};

    /// Has room for so many bytes.
    struct Room(usize);
    impl Write for Room {
        fn write_str(&mut self, text: &str) -> Result {
            self.0 = self.0.checked_sub(text.len()).ok_or(Error)?;
            Ok(())
        }
    }
    let candidate = Config::builder("candidate").consecutive_failures(3);
    let report = short_recording().replay(candidate.build().unwrap());
    assert_eq!(report.opened(), 1);
    let whole = report.to_string().len();
    for room in 0..whole {
        assert_eq!(write!(Room(room), "{report}"), Err(Error), "{room} bytes of {whole}");
    }
    assert_eq!(write!(Room(whole), "{report}"), Ok(()));
}

#[test]
fn a_recording_says_when_its_circuit_was_made() {
    let clock = ManualClock::new();
    clock.advance(5 * MILLI);
    let recorder = Recorder::new(PLENTY);
    let circuit = recorded(Config::builder("a"), &clock, &recorder);
    clock.advance(2 * MILLI);
    circuit.try_acquire().unwrap().record(Outcome::Success);
    let recording = recorder.recording();
    // This clock's calendar begins with it.
    assert_eq!(recording.began(), SystemTime::UNIX_EPOCH + 5 * MILLI);
    assert_eq!(recording.ends_at(), 2 * MILLI);
}
