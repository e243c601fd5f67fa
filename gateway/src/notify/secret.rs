//! What is read from a file each time, so that it can be changed while the
//! gateway runs, and is never shown.

use std::path::Path;

use super::failure::Failure;

/// What is in a file, without space at its ends.
pub(super) async fn read(file: &Path, field: &str) -> Result<String, Failure> {
    match tokio::fs::read_to_string(file).await {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) => Err(Failure::transient(format!("{field}: {} is empty", file.display()))),
        Err(error) => Err(Failure::transient(format!("{field}: {}: {error}", file.display()))),
    }
}
