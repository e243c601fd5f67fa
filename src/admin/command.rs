//! What an operator asks for, and its doing.

use serde_json::{Value, json};

use super::{
    auth::AdminIdentity,
    fields::Fields,
    list::Filter,
    refusal::Refusal,
    route::{self, Target},
    service::Shared,
    view,
};
use crate::{Circuit, Override, Registry, SteerError};

/// How many events tell what has changed.
const TOLD: usize = 5;

/// What is to be done, why, and on which condition.
#[derive(Debug)]
pub(super) struct Command {
    action: Action,
    reason: String,
    if_generation: Option<u64>,
    /// For many at once.
    choice: Option<Choice>,
}

#[derive(Clone, Debug)]
enum Action {
    SetOverride(Override),
    ClearOverride,
    Open,
    HalfOpen,
    Close,
    Reset,
}

/// Which of all circuits, and how many that should be.
#[derive(Debug)]
struct Choice {
    confirm: u64,
    of: Chosen,
}

#[derive(Debug)]
enum Chosen {
    Ids(Vec<Named>),
    Filter(Filter),
}

/// A circuit by its id, as somebody saw it if they say so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    id: String,
    if_generation: Option<u64>,
}

impl Command {
    /// Reads a body. Nothing is looked at but the body.
    pub(super) fn read(target: &Target, body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::of_body(body)?;
        let mut choice = None;
        let action = match target {
            Target::SetOverride(_) => Action::SetOverride(read_override(&mut fields)?),
            Target::ClearOverride(_) => Action::ClearOverride,
            Target::Transition(_) => match fields.word("to", &["open", "half_open", "closed"])? {
                "open" => Action::Open,
                "half_open" => Action::HalfOpen,
                _ => Action::Close,
            },
            Target::Reset(_) => Action::Reset,
            Target::Bulk => {
                let words = ["override", "clear_override", "open", "close", "reset"];
                let action = match fields.word("action", &words)? {
                    "override" => Action::SetOverride(read_override(&mut fields)?),
                    "clear_override" => Action::ClearOverride,
                    "open" => Action::Open,
                    "close" => Action::Close,
                    _ => Action::Reset,
                };
                choice = Some(Choice::read(&mut fields)?);
                action
            }
        };
        let reason = fields.reason()?;
        // Many circuits have many generations; there the count is confirmed.
        let if_generation = if choice.is_none() { fields.number("if_generation")? } else { None };
        fields.finish()?;
        Ok(Self { action, reason, if_generation, choice })
    }

    /// Does it, in the name of who asked; what the circuits are then.
    pub(super) fn run(
        self,
        service: &Shared,
        target: &Target,
        identity: &AdminIdentity,
    ) -> Result<Value, Refusal> {
        let registry = &service.settings.registry;
        match (target, &self.choice) {
            (Target::Bulk, Some(choice)) => {
                let chosen = choice.find(service)?;
                let (mut changed, mut unchanged) = (0_u64, 0_u64);
                let mut failed = Vec::new();
                for (id, circuit, as_seen) in chosen {
                    match self.apply(registry, &circuit, Some(as_seen), identity) {
                        Ok(revision) if revision == as_seen => unchanged += 1,
                        Ok(_) => changed += 1,
                        Err(error) => {
                            failed.push(json!({ "id": id, "error": refused(&error).to_json() }));
                        }
                    }
                }
                Ok(json!({ "changed": changed, "unchanged": unchanged, "failed": failed }))
            }
            (
                Target::SetOverride(id)
                | Target::ClearOverride(id)
                | Target::Transition(id)
                | Target::Reset(id),
                _,
            ) => {
                let circuit = service.find(id)?;
                self.apply(registry, &circuit, self.if_generation, identity)
                    .map_err(|error| refused(&error).current(current(registry, &circuit)))?;
                Ok(json!({ "circuit": view::one(registry, &circuit) }))
            }
            (Target::Bulk, None) => Err(Refusal::not_found()),
        }
    }

    /// Does it to one circuit, and notes who and why. Returns the revision that
    /// it has then.
    fn apply(
        &self,
        registry: &Registry,
        circuit: &Circuit,
        if_generation: Option<u64>,
        identity: &AdminIdentity,
    ) -> Result<u64, SteerError> {
        let steer = circuit.if_revision(if_generation);
        let revision = match &self.action {
            Action::SetOverride(over) => {
                let over = over.clone().reason(self.reason.clone()).owner(identity.who());
                steer.set_override(over)
            }
            Action::ClearOverride => steer.clear_override(),
            Action::Open => steer.trip(),
            Action::HalfOpen => steer.end_wait(),
            Action::Close | Action::Reset => steer.reset(),
        }?;
        let command =
            crate::Command::new(self.action.word()).by(identity.who()).reason(self.reason.clone());
        registry.record_command(circuit, command);
        Ok(revision)
    }
}

impl Action {
    /// For the event.
    fn word(&self) -> &'static str {
        match self {
            Self::SetOverride(_) => "override",
            Self::ClearOverride => "clear_override",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Close => "close",
            Self::Reset => "reset",
        }
    }
}

impl Choice {
    fn read(fields: &mut Fields) -> Result<Self, Refusal> {
        let ids = fields.list("ids", Named::read)?;
        let filter = fields.object("filter", "filter.")?.map(Filter::of_fields).transpose()?;
        let of = match (ids, filter) {
            (Some(ids), None) => Chosen::Ids(ids),
            (None, Some(filter)) => Chosen::Filter(filter),
            _ => {
                let expected = "or ids is needed, and only one of them";
                return Err(Refusal::invalid("filter", expected));
            }
        };
        let Some(confirm) = fields.number("confirm")? else {
            let expected = "is needed: how many circuits this is for";
            return Err(Refusal::invalid("confirm", expected));
        };
        Ok(Self { confirm, of })
    }

    /// The circuits, each with the revision that is meant, if there are as many
    /// as confirmed.
    fn find(&self, service: &Shared) -> Result<Vec<(String, Circuit, u64)>, Refusal> {
        let registry = &service.settings.registry;
        let found: Vec<_> = match &self.of {
            Chosen::Filter(filter) => {
                let mut all = view::all(registry);
                all.retain(|seen| filter.is_met_by(seen));
                all.into_iter()
                    .map(|seen| (seen.id, seen.circuit, seen.snapshot.revision))
                    .collect()
            }
            Chosen::Ids(named) => {
                let mut named = named.clone();
                named.sort_unstable();
                named.dedup();
                if let Some(twice) = named.windows(2).find(|pair| pair[0].id == pair[1].id) {
                    let expected = format!("names {:?} twice, as seen differently", twice[0].id);
                    return Err(Refusal::invalid("ids", &expected));
                }
                let find = |Named { id, if_generation }| {
                    let circuit = service.find(&id)?;
                    let revision = if_generation.unwrap_or_else(|| circuit.snapshot().revision);
                    Ok((id, circuit, revision))
                };
                named.into_iter().map(find).collect::<Result<_, Refusal>>()?
            }
        };
        match found.len() as u64 {
            count if count == self.confirm => Ok(found),
            count => Err(Refusal::confirm_mismatch(self.confirm, count)),
        }
    }
}

impl Named {
    /// An id, or an object with `id` and `if_generation`.
    fn read(value: Value) -> Result<Self, Refusal> {
        let expected = "must be a list of strings, or of objects with id and if_generation";
        match value {
            Value::String(id) => Ok(Self { id: route::as_told(id), if_generation: None }),
            Value::Object(all) => {
                let mut fields = Fields::of(all, "ids.");
                let if_generation = fields.number("if_generation")?;
                let id = fields.text("id")?;
                fields.finish()?;
                let id = id.ok_or_else(|| Refusal::invalid("ids.id", "is needed"))?;
                Ok(Self { id: route::as_told(id), if_generation })
            }
            _ => Err(Refusal::invalid("ids", expected)),
        }
    }
}

fn read_override(fields: &mut Fields) -> Result<Override, Refusal> {
    let over = match fields.word("kind", &["force_open", "force_closed", "observe_only"])? {
        "force_open" => Override::force_open(),
        "force_closed" => Override::force_closed(),
        _ => Override::observe_only(),
    };
    Ok(match fields.expires_in()? {
        Some(duration) => over.expires_in(duration),
        None => over.until_cleared(),
    })
}

/// Why a circuit was not steered.
fn refused(error: &SteerError) -> Refusal {
    match error {
        SteerError::Changed { expected, revision, .. } => Refusal::stale(*expected, *revision),
        error => Refusal::not_possible(error.to_string()),
    }
}

/// How a circuit is that was not steered, and what came of it lately.
fn current(registry: &Registry, circuit: &Circuit) -> Value {
    json!({
        "circuit": view::one(registry, circuit),
        "events": view::latest(registry, &view::id(circuit.name(), circuit.key()), TOLD),
    })
}
