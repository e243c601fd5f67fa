//! The bodies of the gateway's own answers.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};

/// A template that was read once.
pub(crate) struct Compiled(Environment<'static>);

const BODY: &str = "body";

impl Compiled {
    /// What is wrong with its syntax, if anything is.
    pub(crate) fn new(source: &str, is_html: bool) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(move |_| match is_html {
            true => AutoEscape::Html,
            false => AutoEscape::None,
        });
        let added = environment.add_template_owned(BODY, source.to_owned());
        added.map(|()| Self(environment)).map_err(|error| told(&error))
    }

    /// With what a circuit that refuses has to say; the seconds until it may be
    /// asked again are known or not.
    pub(crate) fn fill(
        &self,
        name: &str,
        state: &str,
        retry_after: Option<u64>,
        cause: &str,
    ) -> Result<String, String> {
        let context = context! { name, state, retry_after, cause };
        let filled = self.0.get_template(BODY).and_then(|template| template.render(context));
        filled.map_err(|error| told(&error))
    }
}

/// What is wrong with a template: its syntax, or a name it can't have. It is
/// filled as it will be, with and without a time to come back.
pub(super) fn check(source: &str) -> Result<(), String> {
    let compiled = Compiled::new(source, false)?;
    let fill = |retry_after| compiled.fill("name", "open", retry_after, "cause");
    [Some(1), None].into_iter().try_for_each(|retry_after| fill(retry_after).map(drop))
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
