//! The bytes of one record: what happened, and how long after the one before.
//!
//! A plain call is two numbers: the time since the record before, with its
//! outcome in the low bits, and its duration. What is rare (a latency that is
//! not the duration, a tie, a hint) goes into a longer form.

use crate::{outcome::Outcome, state::State};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Call(Ended),
    /// A call was not admitted.
    Refusal,
    /// The recorded circuit changed its state, that many nanoseconds before.
    Change {
        ago: u64,
        from: State,
        to: State,
        cause: String,
    },
}

/// A call that ended. Times are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// From its admission to its end.
    pub(crate) duration: u64,
    /// What it was judged by, if that was measured.
    pub(crate) latency: Option<u64>,
    /// `None`: it was dropped.
    pub(crate) outcome: Option<Outcome>,
    /// How many of the records of the very nanosecond at which it began were
    /// written before it began.
    pub(crate) ties: u64,
    /// How long after its admission the dependency asked to be left alone, and
    /// for how long.
    pub(crate) hint: Option<(u64, u64)>,
    /// How long after its admission the head of its response came, if that is
    /// not what it was judged by.
    pub(crate) head: Option<u64>,
}

/// The longest time between two records: 73 years.
pub(crate) const LONGEST_STEP: u64 = (1 << 61) - 1;

/// No record is longer.
pub(super) const LONGEST_RECORD: usize = 96;

const LONGEST_CAUSE: usize = 32;

const TAG_BITS: u32 = 3;
const CALL: u64 = 4;
const REFUSAL: u64 = 5;
const CHANGE: u64 = 6;

const LATENCY_GIVEN: u8 = 1 << 2;
const LATENCY_UNKNOWN: u8 = 1 << 3;
const TIES: u8 = 1 << 4;
const HINT: u8 = 1 << 5;
const HEAD: u8 = 1 << 6;

/// Appends an event that came `step` nanoseconds after the one before.
pub(super) fn encode(bytes: &mut Vec<u8>, step: u64, event: &Event) {
    let step = step.min(LONGEST_STEP) << TAG_BITS;
    match event {
        Event::Call(call) => {
            let outcome = outcome_code(call.outcome);
            let plain = call.latency == Some(call.duration) && call.ties == 0;
            if plain && call.hint.is_none() && call.head.is_none() {
                number(bytes, step | u64::from(outcome));
                number(bytes, call.duration);
            } else {
                number(bytes, step | CALL);
                call_in_full(bytes, call, outcome);
            }
        }
        Event::Refusal => number(bytes, step | REFUSAL),
        Event::Change { ago, from, to, cause } => {
            let cause = &cause.as_bytes()[..cause.len().min(LONGEST_CAUSE)];
            number(bytes, step | CHANGE);
            number(bytes, *ago);
            // At most 32.
            bytes.extend([state_code(*from), state_code(*to), cause.len() as u8]);
            bytes.extend_from_slice(cause);
        }
    }
}

fn call_in_full(bytes: &mut Vec<u8>, call: &Ended, outcome: u8) {
    let latency = call.latency.filter(|latency| *latency != call.duration);
    let mut flags = outcome;
    flags |= latency.map_or(0, |_| LATENCY_GIVEN);
    flags |= call.latency.map_or(LATENCY_UNKNOWN, |_| 0);
    flags |= if call.ties > 0 { TIES } else { 0 };
    flags |= call.hint.map_or(0, |_| HINT);
    flags |= call.head.map_or(0, |_| HEAD);
    bytes.push(flags);
    number(bytes, call.duration);
    latency.into_iter().for_each(|latency| number(bytes, latency));
    if call.ties > 0 {
        number(bytes, call.ties);
    }
    if let Some((after, wait)) = call.hint {
        number(bytes, after);
        number(bytes, wait);
    }
    call.head.into_iter().for_each(|head| number(bytes, head));
}

/// Takes the next record off `bytes`: its step, and what happened.
pub(super) fn decode(bytes: &mut &[u8]) -> Result<(u64, Event), &'static str> {
    let head = take_number(bytes)?;
    let event = match head & ((1 << TAG_BITS) - 1) {
        CALL => Event::Call(take_call_in_full(bytes)?),
        REFUSAL => Event::Refusal,
        CHANGE => take_change(bytes)?,
        tag if tag < CALL => {
            let duration = take_number(bytes)?;
            Event::Call(Ended {
                duration,
                latency: Some(duration),
                // Below four.
                outcome: outcome_of(tag as u8),
                ties: 0,
                hint: None,
                head: None,
            })
        }
        _ => return Err("there is no such kind of record"),
    };
    Ok((head >> TAG_BITS, event))
}

fn take_call_in_full(bytes: &mut &[u8]) -> Result<Ended, &'static str> {
    let flags = take_byte(bytes)?;
    let is_known = flags < HEAD << 1;
    if !is_known || flags & LATENCY_GIVEN != 0 && flags & LATENCY_UNKNOWN != 0 {
        return Err("a call has flags that do not exist");
    }
    let duration = take_number(bytes)?;
    let latency = match flags & (LATENCY_GIVEN | LATENCY_UNKNOWN) {
        LATENCY_GIVEN => Some(take_number(bytes)?),
        LATENCY_UNKNOWN => None,
        _ => Some(duration),
    };
    let ties = if flags & TIES == 0 { 0 } else { take_number(bytes)? };
    let hint = match flags & HINT {
        0 => None,
        _ => Some((take_number(bytes)?, take_number(bytes)?)),
    };
    let head = if flags & HEAD == 0 { None } else { Some(take_number(bytes)?) };
    Ok(Ended { duration, latency, outcome: outcome_of(flags & 3), ties, hint, head })
}

fn take_change(bytes: &mut &[u8]) -> Result<Event, &'static str> {
    let ago = take_number(bytes)?;
    let from = state_of(take_byte(bytes)?)?;
    let to = state_of(take_byte(bytes)?)?;
    let length = usize::from(take_byte(bytes)?);
    if length > LONGEST_CAUSE {
        return Err("a cause is longer than 32 bytes");
    }
    let (cause, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
    let is_label = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'-';
    if !cause.iter().all(is_label) {
        return Err("a cause is not in lower-case letters");
    }
    *bytes = rest;
    let cause = cause.iter().map(|byte| char::from(*byte)).collect();
    Ok(Event::Change { ago, from, to, cause })
}

const fn outcome_code(outcome: Option<Outcome>) -> u8 {
    match outcome {
        Some(Outcome::Success) => 0,
        Some(Outcome::Failure) => 1,
        Some(Outcome::Ignored) => 2,
        None => 3,
    }
}

const fn outcome_of(code: u8) -> Option<Outcome> {
    match code {
        0 => Some(Outcome::Success),
        1 => Some(Outcome::Failure),
        2 => Some(Outcome::Ignored),
        _ => None,
    }
}

const fn state_code(state: State) -> u8 {
    match state {
        State::Closed => 0,
        State::Open => 1,
        State::HalfOpen => 2,
    }
}

const fn state_of(code: u8) -> Result<State, &'static str> {
    match code {
        0 => Ok(State::Closed),
        1 => Ok(State::Open),
        2 => Ok(State::HalfOpen),
        _ => Err("there is no such state"),
    }
}

const CUT: &str = "a record is cut off";

/// Appends a number, seven bits a byte, the low ones first.
pub(super) fn number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        // The low byte.
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Adds the next byte of a number to `number`, and says whether it was the
/// last.
pub(super) fn grow_number(number: &mut u64, shift: u32, byte: u8) -> Result<bool, &'static str> {
    let bits = u64::from(byte & 0x7f);
    if shift > 63 || shift == 63 && bits > 1 {
        return Err("a number is larger than 64 bits");
    }
    *number |= bits << shift;
    Ok(byte & 0x80 == 0)
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        if grow_number(&mut number, shift, take_byte(bytes)?)? {
            break;
        }
    }
    Ok(number)
}

fn take_byte(bytes: &mut &[u8]) -> Result<u8, &'static str> {
    let (first, rest) = bytes.split_first().ok_or(CUT)?;
    *bytes = rest;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome() -> impl Strategy<Value = Option<Outcome>> {
        (0..4u8).prop_map(outcome_of)
    }

    fn ended() -> impl Strategy<Value = Ended> {
        let rare = proptest::option::of((any::<u64>(), any::<u64>()));
        let latency =
            prop_oneof![Just(None), Just(Some(None)), any::<u64>().prop_map(|l| Some(Some(l)))];
        let ties = prop_oneof![Just(0), any::<u64>()];
        let head = proptest::option::of(any::<u64>());
        (any::<u64>(), latency, outcome(), ties, rare, head).prop_map(
            |(duration, latency, outcome, ties, hint, head)| {
                let latency = latency.map(|given| given.unwrap_or(duration));
                Ended { duration, latency, outcome, ties, hint, head }
            },
        )
    }

    fn event() -> impl Strategy<Value = Event> {
        let state = || (0..3u8).prop_map(|code| state_of(code).unwrap());
        prop_oneof![
            ended().prop_map(Event::Call),
            Just(Event::Refusal),
            (any::<u64>(), state(), state(), "[a-z-]{0,32}")
                .prop_map(|(ago, from, to, cause)| Event::Change { ago, from, to, cause }),
        ]
    }

    #[test]
    fn a_number_has_64_bits_and_no_more() {
        let largest = [&[0xff; 9][..], &[0x01]].concat();
        assert_eq!(take_number(&mut &*largest), Ok(u64::MAX));
        for last in [0x02, 0x80] {
            let larger = [&[0xff; 9][..], &[last, 0]].concat();
            assert!(take_number(&mut &*larger).is_err());
        }
    }

    /// In a file of today, and in one from before heads were recorded.
    #[test]
    fn a_call_in_full_reads_as_it_was_written() {
        let dropped = |head| Ended {
            duration: 9,
            latency: None,
            outcome: None,
            ties: 0,
            hint: Some((2, 7)),
            head,
        };
        let before: &[u8] = &[4, 3 | 8 | 32, 9, 2, 7];
        let today: &[u8] = &[4, 3 | 8 | 32 | 64, 9, 2, 7, 5];
        for (mut bytes, head) in [(before, None), (today, Some(5))] {
            assert_eq!(decode(&mut bytes), Ok((0, Event::Call(dropped(head)))));
        }
        assert!(decode(&mut &[4, 3 | 128, 9][..]).is_err());
    }

    /// What is read from a file goes into logs and metrics.
    #[test]
    fn a_cause_is_a_word_and_no_longer_than_one() {
        let change = |cause: &str| {
            let mut bytes = vec![CHANGE as u8, 0, 0, 1, cause.len() as u8];
            bytes.extend(cause.bytes());
            decode(&mut &*bytes).map(|_| ())
        };
        let longest = "a".repeat(LONGEST_CAUSE);
        for cause in ["", "tripped", "wait-over", &longest] {
            assert_eq!(change(cause), Ok(()), "{cause}");
        }
        assert_eq!(change(&(longest + "a")), Err("a cause is longer than 32 bytes"));
        for cause in ["Tripped", "wait over", "\n", "\u{1b}[2J", "é"] {
            assert_eq!(change(cause), Err("a cause is not in lower-case letters"), "{cause}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(events in proptest::collection::vec((0..=LONGEST_STEP, event()), 0..20)) {
            let mut bytes = Vec::new();
            for (step, event) in &events {
                let before = bytes.len();
                encode(&mut bytes, *step, event);
                prop_assert!(bytes.len() - before <= LONGEST_RECORD);
            }
            let mut rest = &*bytes;
            for expected in &events {
                prop_assert_eq!(&decode(&mut rest).unwrap(), expected);
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &*bytes;
            while !rest.is_empty() {
                let before = rest.len();
                if decode(&mut rest).is_err() {
                    break;
                }
                prop_assert!(rest.len() < before);
            }
        }
    }
}
