//! `brk add`.

use std::process::ExitCode;

use super::{Error, Global};

#[derive(clap::Args, Debug)]
pub struct Add {}

impl Add {
    pub async fn run(self, _: &Global) -> Result<ExitCode, Error> {
        Err(Error::new("not there yet"))
    }
}
