//! The bodies of the gateway's own answers, tried before they are needed.

use minijinja::{Environment, UndefinedBehavior, context};

/// What is wrong with a template: its syntax, or a name it can't have. It is
/// rendered as it will be, with and without a time to come back.
pub(super) fn check(source: &str) -> Result<(), String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let template = environment.template_from_str(source).map_err(|error| told(&error))?;
    for retry_after in [Some(1), None] {
        let context = context! { name => "name", state => "open", retry_after, cause => "cause" };
        template.render(context).map_err(|error| told(&error))?;
    }
    Ok(())
}

fn told(error: &minijinja::Error) -> String {
    let kind = match error.kind() {
        minijinja::ErrorKind::UndefinedError => {
            "there are only `name`, `state`, `retry_after` and `cause`".to_owned()
        }
        kind => match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    match error.line() {
        Some(line) => format!("line {line} of it: {kind}"),
        None => kind,
    }
}
