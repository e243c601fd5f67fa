//! Times and durations as they are written.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

#[expect(clippy::disallowed_methods, reason = "shown to a person; nothing is decided by it")]
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// In UTC, to the millisecond. What a clock that is not set says, before 1970,
/// is 1970.
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time.max(UNIX_EPOCH)).to_string()
}

/// When it was, by the wall clock, that a circuit's clock showed `instant`.
pub(super) fn wall_time(instant: Instant, now: Instant, wall: SystemTime) -> SystemTime {
    let ago = now.saturating_duration_since(instant);
    wall.checked_sub(ago).unwrap_or(UNIX_EPOCH)
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> Value {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into()
}

/// Milliseconds, to the microsecond.
pub(super) fn fine_millis(duration: Duration) -> Value {
    round(duration.as_secs_f64() * 1e3, 1e3)
}

/// A number to so many parts of one.
pub(super) fn round(number: f64, parts: f64) -> Value {
    ((number * parts).round() / parts).into()
}

/// As a person says it: `0.3 s`, `12 s`, `5 min`, `3 h`, `2 d`. Rounded down, so
/// that nothing is said to have lasted longer than it has.
pub(super) fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => {
            let tenths = duration.as_millis() / 100;
            match tenths % 10 {
                0 => format!("{} s", tenths / 10),
                tenth => format!("{}.{tenth} s", tenths / 10),
            }
        }
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_as_a_person_would_say_it() {
        for (millis, said) in [
            (0, "0 s"),
            (290, "0.2 s"),
            (4_000, "4 s"),
            (9_999, "9.9 s"),
            (119_999, "119 s"),
            (3_599_000, "59 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(spoken(Duration::from_millis(millis)), said);
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_no_reason_to_panic() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(rfc3339(before), "1970-01-01T00:00:00.000Z");
    }
}
