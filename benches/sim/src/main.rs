//! Regenerates `benches/sim/report`: tables and charts, the same bytes on
//! every run.

use std::{fs, io, path::Path};

use tower_breaker_sim::report::report;

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("report");
    fs::create_dir_all(&folder)?;
    for file in report() {
        fs::write(folder.join(&file.name), &file.contents)?;
        println!("{}: {} bytes", file.name, file.contents.len());
    }
    Ok(())
}
