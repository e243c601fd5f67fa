//! Questions on a terminal. Each has a flag that answers it beforehand.

use std::io::{self, BufRead, IsTerminal, Write};

use super::Error;

/// Whether there is somebody to ask: questions go to the standard error, so
/// that answers can be piped on.
pub fn is_somebody_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a line; an empty one is asked for again.
pub fn line(question: &str, flag: &str) -> Result<String, Error> {
    if !is_somebody_there() {
        return Err(Error::usage(format_args!("nobody is there to be asked: say {flag}")));
    }
    loop {
        let line = read(&format!("{question}: "))?.ok_or_else(Error::declined)?;
        if !line.is_empty() {
            return Ok(line);
        }
    }
}

/// Asks whether to go on. All but a yes is a no.
pub fn confirm(question: &str, flag: &str) -> Result<(), Error> {
    if !is_somebody_there() {
        return Err(Error::usage(format_args!("nobody is there to be asked: say {flag}")));
    }
    let said = read(&format!("{question} [y/N] "))?.unwrap_or_default();
    let is_yes = matches!(said.to_ascii_lowercase().as_str(), "y" | "yes");
    if is_yes { Ok(()) } else { Err(Error::declined()) }
}

/// A line without the blanks around it; none at the end of the input.
fn read(prompt: &str) -> Result<Option<String>, Error> {
    io::stderr().write_all(prompt.as_bytes())?;
    io::stderr().flush()?;
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(line.trim().to_owned())),
    }
}
