//! `brk list`.

use std::{collections::BTreeMap, process::ExitCode};

use comfy_table::ContentArrangement;
use serde_json::Value;

use super::{Client, Error, Global, Output, client, show};

/// Each with the URL that programs call, where that goes, and how its circuit
/// is.
#[derive(clap::Args, Debug)]
pub struct List {}

impl List {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let client = Client::new(global)?;
        let services = client.get("services").await?;
        if global.output == Output::Json {
            show::json(&services)?;
            return Ok(ExitCode::SUCCESS);
        }
        let circuits = client::all_circuits(&client, "").await?;
        let circuits = circuits.as_array().into_iter().flatten();
        let by_id: BTreeMap<_, _> =
            circuits.filter_map(|circuit| Some((circuit["id"].as_str()?, circuit))).collect();
        let mut table = show::table(global, &["SERVICE", "URL", "UPSTREAM", "STATE"]);
        let services = services["services"].as_array().map(Vec::as_slice).unwrap_or_default();
        for service in services {
            let name = service["name"].as_str().unwrap_or_default();
            let circuit = by_id.get(name).copied().unwrap_or(&Value::Null);
            let upstream = &service["settings"]["upstream"];
            let upstream = upstream.get("url").unwrap_or(upstream);
            table.add_row(vec![
                show::text(&service["name"]).into_owned().into(),
                show::text(&service["url"]).into_owned().into(),
                show::text(upstream).into_owned().into(),
                show::state(circuit),
            ]);
        }
        if services.is_empty() {
            show::line("there are no services; `brk add http://127.0.0.1:3000` adds one")?;
        } else {
            // A URL that is broken over lines can't be copied.
            table.set_content_arrangement(ContentArrangement::Disabled);
            show::print(&table)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
