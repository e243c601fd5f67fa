//! What an operator asks for, and its doing.

use serde_json::{Value, json};

use super::{
    auth::AdminIdentity,
    fields::Fields,
    list::Filter,
    refusal::Refusal,
    route::Target,
    service::Shared,
    view::{self, Seen},
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
    Ids(Vec<String>),
    Filter(Filter),
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
                let mut changed = 0_u64;
                let mut failed = Vec::new();
                for seen in chosen {
                    let as_seen = Some(seen.snapshot.revision);
                    match self.apply(registry, &seen.circuit, as_seen, identity) {
                        Ok(()) => changed += 1,
                        Err(refusal) => {
                            failed.push(json!({ "id": seen.id, "error": refusal.to_json() }));
                        }
                    }
                }
                Ok(json!({ "changed": changed, "failed": failed }))
            }
            (
                Target::SetOverride(id)
                | Target::ClearOverride(id)
                | Target::Transition(id)
                | Target::Reset(id),
                _,
            ) => {
                let circuit = service.find(id)?;
                self.apply(registry, &circuit, self.if_generation, identity)?;
                Ok(json!({ "circuit": view::one(registry, &circuit) }))
            }
            (Target::Bulk, None) => Err(Refusal::not_found()),
        }
    }

    /// Does it to one circuit, and notes who and why.
    fn apply(
        &self,
        registry: &Registry,
        circuit: &Circuit,
        if_generation: Option<u64>,
        identity: &AdminIdentity,
    ) -> Result<(), Refusal> {
        let steer = circuit.if_revision(if_generation);
        let done = match &self.action {
            Action::SetOverride(over) => {
                let over = over.clone().reason(self.reason.clone()).owner(identity.who());
                steer.set_override(over)
            }
            Action::ClearOverride => steer.clear_override(),
            Action::Open => steer.trip(),
            Action::HalfOpen => steer.end_wait(),
            Action::Close | Action::Reset => steer.reset(),
        };
        if let Err(error) = done {
            return Err(refused(registry, circuit, error));
        }
        let command =
            crate::Command::new(self.action.word()).by(identity.who()).reason(self.reason.clone());
        registry.record_command(circuit, command);
        Ok(())
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
        let ids = fields.texts("ids")?;
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

    /// The circuits, if there are as many as confirmed.
    fn find(&self, service: &Shared) -> Result<Vec<Seen>, Refusal> {
        let registry = &service.settings.registry;
        let found = match &self.of {
            Chosen::Filter(filter) => {
                let mut all = view::all(registry);
                all.retain(|seen| filter.is_met_by(seen));
                all
            }
            Chosen::Ids(ids) => {
                let mut ids = ids.clone();
                ids.sort_unstable();
                ids.dedup();
                let seen = |id: &String| {
                    let seen = Seen::of(registry, service.find(id)?);
                    seen.ok_or_else(|| Refusal::unknown_circuit(id))
                };
                ids.iter().map(seen).collect::<Result<_, Refusal>>()?
            }
        };
        match found.len() as u64 {
            count if count == self.confirm => Ok(found),
            count => Err(Refusal::confirm_mismatch(self.confirm, count)),
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

/// Why a circuit was not steered, with how it is instead.
fn refused(registry: &Registry, circuit: &Circuit, error: SteerError) -> Refusal {
    let refusal = match error {
        SteerError::Changed { expected, revision, .. } => Refusal::stale(expected, revision),
        error => Refusal::not_possible(error.to_string()),
    };
    refusal.current(json!({
        "circuit": view::one(registry, circuit),
        "events": view::latest(registry, &view::id(circuit.name(), circuit.key()), TOLD),
    }))
}
