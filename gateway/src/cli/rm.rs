//! `brk rm`.

use std::process::ExitCode;

use super::{Error, Global};

#[derive(clap::Args, Debug)]
pub struct Rm {}

impl Rm {
    pub async fn run(self, _: &Global) -> Result<ExitCode, Error> {
        Err(Error::new("not there yet"))
    }
}
