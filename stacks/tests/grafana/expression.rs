//! What an expression of PromQL names: series, with what it says of their
//! labels, and the labels it groups and joins by. Nothing else is understood.

use std::{collections::BTreeSet, fmt, iter::Peekable, sync::LazyLock, vec};

use regex::Regex;

use super::scrape::Scrape;

static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    let token = concat!(
        r#""(?:[^"\\]|\\.)*""#,        // a text
        r"|\[[^\]]*\]",                // a range
        r"|[0-9][0-9a-zA-Z.]*",        // a number
        r"|[a-zA-Z_:][a-zA-Z0-9_:]*",  // a name
        r"|=~|!~|!=|==|>=|<=|[^\s\w]", // the rest
    );
    Regex::new(token).unwrap()
});

/// Tokens that stand before a list of labels.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words that name no series.
const WORDS: [&str; 11] = [
    "and",
    "count",
    "histogram_quantile",
    "increase",
    "max",
    "min",
    "or",
    "rate",
    "sum",
    "unless",
    "vector",
];

/// The names in an expression.
#[derive(Default)]
pub(crate) struct Expression {
    selectors: Vec<Selector>,
    labels: Vec<String>,
}

/// A series, and what its labels must be.
struct Selector {
    name: String,
    matchers: Vec<Matcher>,
}

/// What one label must be, or must not.
pub(crate) struct Matcher {
    pub(crate) label: String,
    /// Regular expressions, any of which may match.
    pub(crate) values: Vec<String>,
    pub(crate) is_negated: bool,
}

type Tokens = Peekable<vec::IntoIter<String>>;

impl Expression {
    pub(crate) fn read(text: &str) -> Self {
        let tokens: Vec<String> =
            TOKEN.find_iter(text).map(|token| token.as_str().to_owned()).collect();
        let mut tokens = tokens.into_iter().peekable();
        let mut this = Self::default();
        while let Some(token) = tokens.next() {
            if BEFORE_LABELS.contains(&&*token) {
                assert_eq!(tokens.next().as_deref(), Some("("), "after {token} in {text}");
                let labels = tokens.by_ref().take_while(|token| token != ")");
                this.labels.extend(labels.filter(|token| token != ","));
            } else if token == "label_values" {
                // Grafana's: of a series, the values of a label.
                tokens.next();
                let name = tokens.next().unwrap();
                this.selectors.push(Selector::read(name, &mut tokens));
                tokens.next();
                this.labels.extend(tokens.next());
            } else if token.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && !WORDS.contains(&&*token)
            {
                this.selectors.push(Selector::read(token, &mut tokens));
            }
        }
        this
    }

    /// The metrics it names, of those there are.
    pub(crate) fn families(&self, scrape: &Scrape) -> BTreeSet<String> {
        self.selectors.iter().filter_map(|selector| scrape.family(&selector.name)).collect()
    }

    /// What it names that a scrape does not have.
    pub(crate) fn problems(&self, scrape: &Scrape) -> Vec<String> {
        let mut problems: Vec<_> =
            self.selectors.iter().flat_map(|selector| selector.problems(scrape)).collect();
        // One that is not there has been told.
        if problems.is_empty() {
            let names = || self.selectors.iter().map(|selector| &*selector.name);
            let unknown = self
                .labels
                .iter()
                .filter(|label| !names().any(|name| scrape.can_have(name, label, ".*")));
            problems
                .extend(unknown.map(|label| format!("none of its series has the label {label}")));
        }
        problems
    }
}

impl Selector {
    /// Reads the matchers behind a name, if there are any.
    fn read(name: String, tokens: &mut Tokens) -> Self {
        let mut matchers = Vec::new();
        if tokens.next_if(|token| token == "{").is_some() {
            while let Some(label) = tokens.next().filter(|token| token != "}") {
                if label == "," {
                    continue;
                }
                let (operator, value) = (tokens.next().unwrap(), tokens.next().unwrap());
                matchers.push(Matcher::new(label, &operator, value.trim_matches('"')));
            }
        }
        Self { name, matchers }
    }

    fn problems(&self, scrape: &Scrape) -> Vec<String> {
        let name = &self.name;
        if !scrape.has(name, &[]) {
            return vec![format!("there is no series {name}")];
        }
        // Each value on its own, and those too that are to be left out: a wrong
        // one among them does no harm that anybody sees.
        let mut problems = Vec::new();
        for Matcher { label, values, .. } in &self.matchers {
            let unknown = values.iter().filter(|value| !scrape.can_have(name, label, value));
            problems.extend(unknown.map(|value| format!("no {name} has {label}={value:?}")));
        }
        if problems.is_empty() && !scrape.has(name, &self.matchers) {
            let all: Vec<_> = self.matchers.iter().map(Matcher::to_string).collect();
            problems.push(format!("no {name} has all of {}", all.join(", ")));
        }
        problems
    }
}

impl Matcher {
    fn new(label: String, operator: &str, value: &str) -> Self {
        let values = match operator {
            // Nothing that a regular expression would read in another way.
            "=" | "!=" => vec![value.to_owned()],
            // A variable may be anything.
            "=~" | "!~" if value.starts_with('$') => vec![".*".to_owned()],
            "=~" | "!~" => value.split('|').map(str::to_owned).collect(),
            _ => panic!("{label}{operator}{value:?}"),
        };
        Self { label, values, is_negated: operator.starts_with('!') }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = if self.is_negated { "!~" } else { "=~" };
        write!(f, "{}{operator}{:?}", self.label, self.values.join("|"))
    }
}
