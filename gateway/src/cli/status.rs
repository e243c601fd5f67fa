//! `brk status`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Client, Error, Global, Output, client, show};

/// A circuit that is not closed, to a script.
const NOT_CLOSED: u8 = 4;

/// Without a name: all circuits, those in trouble first. With one: all there is
/// to know of it.
///
/// With --check it says nothing but which circuits are not closed, and ends with
/// exit code 4 if there are any: open and half-open ones refuse calls, and so
/// does one that is held open. One that is held closed or observed passes.
#[derive(clap::Args, Debug)]
pub struct Status {
    /// A service, or the id of a circuit
    name: Option<String>,

    /// Say only what is not closed, with exit code 4 if something is
    #[arg(long)]
    check: bool,
}

impl Status {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let client = Client::new(global)?;
        let (document, circuits) = match &self.name {
            Some(name) => {
                let detail = client.get(&format!("circuits/{}", client::segment(name))).await?;
                let circuit = detail["circuit"].clone();
                (detail, vec![circuit])
            }
            None => {
                let all = client::all_circuits(&client, "").await?;
                let circuits = all.as_array().cloned().unwrap_or_default();
                (json!({ "circuits": all }), circuits)
            }
        };
        if self.check {
            return check(global, &circuits);
        }
        match (global.output, &self.name) {
            (Output::Json, _) => show::json(&document)?,
            (Output::Table, Some(_)) => detail(global, &document)?,
            (Output::Table, None) if circuits.is_empty() => {
                show::line("there are no circuits; `brk add http://127.0.0.1:3000` adds one")?;
            }
            (Output::Table, None) => {
                let mut table = show::table(global, &show::HEADS);
                let rows = circuits.iter().map(|circuit| show::row(circuit, 28));
                table.add_rows(rows);
                show::keep_whole(&mut table, &[1, 2, 3, 4, 5, 6]);
                show::print(&table)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn check(global: &Global, circuits: &[Value]) -> Result<ExitCode, Error> {
    let refusing: Vec<_> = circuits.iter().filter(|one| one["state"] != "closed").collect();
    if global.output == Output::Json {
        show::json(&json!({ "ok": refusing.is_empty(), "not_closed": refusing }))?;
    } else {
        for circuit in &refusing {
            let (id, state) = (show::text(&circuit["id"]), show::state_word(circuit));
            show::line(&format!("{id} is {state}: {}", show::text(&circuit["sentence"])))?;
        }
    }
    let code = if refusing.is_empty() { 0 } else { NOT_CLOSED };
    Ok(code.into())
}

fn detail(global: &Global, detail: &Value) -> Result<(), Error> {
    let circuit = &detail["circuit"];
    show::line(&format!("{}: {}", show::text(&circuit["id"]), show::text(&circuit["sentence"])))?;
    let mut table = show::table(global, &show::HEADS[1..]);
    table.add_row(show::row(circuit, 64).into_iter().skip(1).collect::<Vec<_>>());
    show::print(&table)?;
    let window = &circuit["window"];
    let number = |value: &Value| value.as_u64().map_or("-".to_owned(), |n| n.to_string());
    show::line(&format!(
        "window: {} calls, {} failed, {} slow; at least {} calls, opens at {} failed",
        number(&window["calls"]),
        number(&window["failures"]),
        number(&window["slow"]),
        number(&window["limits"]["minimum_calls"]),
        show::percent(&window["limits"]["failure_rate"]),
    ))?;
    show::line(&format!("generation: {}", number(&circuit["generation"])))?;
    let events = detail["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    let latest = &events[events.len().saturating_sub(5)..];
    if !latest.is_empty() {
        show::line("")?;
    }
    latest.iter().try_for_each(|event| show::line(&super::events::line(event)))
}
