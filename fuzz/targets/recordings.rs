//! Recordings that were damaged. After a zero the bytes are a file as it is;
//! after anything else header and blocks, which get the checksums that they
//! ought to have: no mutation finds those.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tower_breaker::{Config, Recording};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let file = if *kind == 0 { bytes.to_vec() } else { sealed(bytes) };
    let Ok(recording) = Recording::read_from(&*file) else { return };

    let mut written = Vec::new();
    recording.write_to(&mut written).expect("a vector takes all");
    let again = Recording::read_from(&*written).expect("what was written can be read");
    assert_eq!(again.calls(), recording.calls());
    assert_eq!(again.rejections(), recording.rejections());
    assert_eq!(again.transitions().len(), recording.transitions().len());

    for candidate in [
        Config::builder("plain"),
        Config::builder("slow")
            .slow_calls(Duration::from_secs(1), 0.5)
            .ramp(Duration::from_secs(9)),
    ] {
        let report = recording.replay(candidate.build().expect("it is valid"));
        assert!(!report.to_string().is_empty());
        let replayed = again.replay(Config::builder("plain").build().expect("it is valid"));
        assert!(report.name != "plain" || report.transitions == replayed.transitions);
    }
});

/// A file of a header, up to the first 0xFF, and blocks, each up to the next one.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut parts = bytes.split(|byte| *byte == 0xFF);
    let header = parts.next().unwrap_or_default();
    let mut file = Vec::from(*b"tbreaker\x01");
    file.extend_from_slice(header);
    let mut checksums = Vec::from(crc32fast::hash(header).to_le_bytes());
    file.extend_from_slice(&checksums);
    for block in parts {
        // The base is a number by itself; the length is of what follows it.
        let base = block.iter().position(|byte| byte & 0x80 == 0).map_or(0, |at| at + 1);
        let Some(length) = block.len().checked_sub(base).filter(|length| *length > 0) else {
            continue;
        };
        let mut number = length;
        while number >= 0x80 {
            file.push(number as u8 | 0x80);
            number >>= 7;
        }
        file.push(number as u8);
        file.extend_from_slice(block);
        let checksum = crc32fast::hash(block).to_le_bytes();
        file.extend(checksum);
        checksums.extend(checksum);
    }
    file.push(0);
    file.extend(crc32fast::hash(&checksums).to_le_bytes());
    file
}
