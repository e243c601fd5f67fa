//! Sizes in bytes, as a person writes them.

/// The larger first.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a whole number and a unit; `None` if it is none, or beyond what a
/// program can have.
pub(super) fn parse(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)?.try_into().ok()
}

/// The same number in the largest binary unit that holds it without a rest.
pub(super) fn format(size: usize) -> String {
    let size = size as u64;
    let unit = UNITS.iter().find(|(name, bytes)| {
        let is_binary = name.contains('i') || *bytes == 1;
        is_binary && size >= *bytes && size % bytes == 0
    });
    match unit {
        Some((name, bytes)) => format!("{}{name}", size / bytes),
        None => format!("{size}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (text, size) in [
            ("64MiB", 64 << 20),
            ("1 GB", 1_000_000_000),
            ("10kB", 10_000),
            ("0B", 0),
            (" 7 KiB ", 7 << 10),
        ] {
            assert_eq!(parse(text), Some(size), "{text}");
            assert_eq!(parse(&format(size)), Some(size), "{}", format(size));
        }
        for text in ["", "64", "MiB", "1.5MiB", "-1B", "64mib", "99999999999999999999B"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(format(64 << 20), "64MiB");
        assert_eq!(format((1 << 20) + 1), "1048577B");
    }
}
