//! The dashboard and the alerts in `examples/grafana` name nothing that a real
//! scrape does not have, and the dashboard leaves nothing out.

mod expression;
mod scrape;

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;
use serde_json::Value;

use self::{expression::Expression, scrape::Scrape};

/// What Grafana knows by itself.
const OF_GRAFANA: [&str; 3] = ["__all", "__range", "__rate_interval"];

#[tokio::test(start_paused = true)]
async fn what_the_dashboard_names_is_there() {
    let scrape = Scrape::take().await;
    let dashboard: Value = serde_json::from_str(&example("dashboard.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let mut variables: Vec<&str> =
        variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    variables.extend(OF_GRAFANA);

    let (variable, label) = (pattern(r"\$\{?(\w+)"), pattern(r"\{\{\s*(\w+)\s*\}\}"));
    let (mut wrong, mut named) = (Vec::new(), BTreeSet::new());
    for (place, key, text) in texts(&dashboard) {
        let mut problems = match key {
            // The other query is the kind of the data source.
            "expr" | "definition" | "query" if text != "prometheus" => {
                let expression = Expression::read(text);
                named.extend(expression.families(&scrape));
                expression.problems(&scrape)
            }
            "legendFormat" => unknown_labels(&label, text, &scrape),
            _ => Vec::new(),
        };
        let unknown = captured(&variable, text).filter(|name| !variables.contains(name));
        problems.extend(unknown.map(|name| format!("there is no variable ${name}")));
        wrong.extend(problems.iter().map(|problem| format!("{place}: {problem}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let left_out: Vec<_> = scrape.families().difference(&named).collect();
    assert!(left_out.is_empty(), "on no panel: {left_out:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_alerts_name_is_there() {
    let scrape = Scrape::take().await;
    let file: Value = serde_saphyr::from_str(&example("alerts.yaml")).unwrap();
    let (label, duration) = (pattern(r"\$labels\.(\w+)"), pattern("^([1-9][0-9]*[mh])$"));
    let mut wrong = Vec::new();
    for rule in file["groups"][0]["rules"].as_array().unwrap() {
        let text = |value: &Value| match value.as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => panic!("something is missing: {rule:#}"),
        };
        let mut problems = Expression::read(&text(&rule["expr"])).problems(&scrape);
        for annotation in ["summary", "description"] {
            let annotation = text(&rule["annotations"][annotation]);
            problems.extend(unknown_labels(&label, &annotation, &scrape));
        }
        text(&rule["labels"]["severity"]);
        if captured(&duration, &text(&rule["for"])).next().is_none() {
            problems.push("`for` is no number of minutes or hours".to_owned());
        }
        let alert = text(&rule["alert"]);
        wrong.extend(problems.iter().map(|problem| format!("{alert}: {problem}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_found() {
    let scrape = Scrape::take().await;
    let problems = |expression| Expression::read(expression).problems(&scrape).join("; ");
    for right in [
        "rate(circuit_breaker_calls_total[5m])",
        r#"sum by (circuit) (circuit_breaker_calls_total{job="a", outcome=~"success|failure"})"#,
        r#"circuit_breaker_calls_total{outcome!="stale", circuit=~"$circuit"} > 1.5e3"#,
        "sum by (le) (circuit_breaker_call_duration_seconds_bucket)",
    ] {
        assert_eq!(problems(right), "", "{right}");
    }
    for (wrong, problem) in [
        ("circuit_breaker_call_total", "there is no series circuit_breaker_call_total"),
        ("rat(circuit_breaker_calls_total[5m])", "there is no series rat"),
        (
            r#"circuit_breaker_calls_total{outcom="success"}"#,
            r#"no circuit_breaker_calls_total has outcom="success""#,
        ),
        (
            r#"circuit_breaker_calls_total{outcome="succes"}"#,
            r#"no circuit_breaker_calls_total has outcome="succes""#,
        ),
        (
            r#"circuit_breaker_calls_total{outcome=~"success|fail"}"#,
            r#"no circuit_breaker_calls_total has outcome="fail""#,
        ),
        (
            r#"circuit_breaker_calls_total{outcome!="succes"}"#,
            r#"no circuit_breaker_calls_total has outcome="succes""#,
        ),
        (
            r#"circuit_breaker_transitions_total{from="closed", to="half-open"}"#,
            r#"no circuit_breaker_transitions_total has all of from=~"closed", to=~"half-open""#,
        ),
        (
            "sum by (shadow) (circuit_breaker_calls_total)",
            "none of its series has the label shadow",
        ),
        (
            "circuit_breaker_state and ignoring (kid) circuit_breaker_override",
            "none of its series has the label kid",
        ),
    ] {
        assert_eq!(problems(wrong), problem, "{wrong}");
    }
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/grafana").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every text in a document: where it is, under which key, and what it says.
fn texts(value: &Value) -> Vec<(String, &str, &str)> {
    let mut texts = Vec::new();
    let mut rest = vec![(String::new(), "", value)];
    while let Some((place, key, value)) = rest.pop() {
        match value {
            Value::Object(object) => {
                // A panel goes by its title.
                let place = match object.get("title").and_then(Value::as_str) {
                    Some(title) => title.to_owned(),
                    None => place,
                };
                rest.extend(object.iter().map(|(key, value)| (place.clone(), &**key, value)));
            }
            Value::Array(values) => {
                rest.extend(values.iter().map(|value| (place.clone(), key, value)));
            }
            Value::String(text) => texts.push((place, key, &**text)),
            _ => {}
        }
    }
    texts
}

fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

/// The labels a template names that no series has.
fn unknown_labels(pattern: &Regex, template: &str, scrape: &Scrape) -> Vec<String> {
    let unknown = captured(pattern, template).filter(|label| !scrape.has_label(label));
    unknown.map(|label| format!("no series has the label {label}")).collect()
}

/// What the pattern's only group finds.
fn captured<'a>(pattern: &Regex, text: &'a str) -> impl Iterator<Item = &'a str> {
    pattern.captures_iter(text).map(|found| found.extract::<1>().1[0])
}
