//! Checks of profiles: what they say is put in the place of what the guests say, and the result is checked as it stands.

use std::collections::BTreeMap;

use super::{Context, Input, cargo, guest, guest_name};
use crate::wetfile::diagnostic::{Code, Diagnostic, Sink, quoted};
use crate::wetfile::name::{GuestName, ProfileName};
use crate::wetfile::project::{EnvValue, Guest, Recipe};
use crate::wetfile::schema::{GuestTable, ProfileTable};

/// The variable by which builds learn which profile was chosen.
const PROFILE_VARIABLE: &str = "WW_PROFILE";

/// The guests as they are under a profile, given as they are without one. `None` if anything was reported.
pub(super) fn check(
    ctx: &Context<'_>,
    table: &ProfileTable,
    guests: &BTreeMap<GuestName, Guest>,
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) -> Option<(ProfileName, BTreeMap<GuestName, Guest>)> {
    // A variable that Rust guests cannot have is reported whatever guests there are: another one may be added.
    let env =
        table.env.iter().filter_map(|(name, value)| guest::variable(name, value, Some(guest::Compiler::Cargo), sink));
    let env: BTreeMap<String, EnvValue> = env.collect();
    let cargo_profile = cargo::profile(&table.cargo_profile, sink);
    let mut guests = guests.clone();
    for guest in guests.values_mut() {
        guest.env.extend(env.clone());
        if let (Recipe::Rust(options), Some(profile)) = (&mut guest.recipe, &cargo_profile) {
            options.profile.clone_from(profile);
        }
    }
    for by in &table.guests {
        if let Some(guest) = overridden_guest(ctx, table, by, cargo_profile.as_deref(), inputs, sink) {
            guests.insert(guest.name.clone(), guest);
        }
    }
    let name = ProfileName::new(&table.name.value).ok()?;
    for guest in guests.values_mut() {
        guest.env.insert(PROFILE_VARIABLE.to_owned(), EnvValue::Set(name.to_string()));
    }
    Some((name, guests))
}

/// A guest as a profile has it.
fn overridden_guest(
    ctx: &Context<'_>,
    profile: &ProfileTable,
    by: &GuestTable,
    cargo_profile: Option<&str>,
    inputs: &mut Vec<Input>,
    sink: &mut Sink<'_>,
) -> Option<Guest> {
    guest_name(ctx, &by.name, sink)?;
    let table = *ctx.guests.get(by.name.value.as_str())?;
    if let Some(build) = by.build.given().filter(|_| table.build.is_absent()) {
        let label = sink.label(&build.span, "there is no command to be replaced");
        let message = format!("guest {} has no `build` of its own", quoted(&table.name.value));
        let help = "a profile cannot make a command guest of another one: leave `build` out";
        sink.push(Diagnostic::error(Code::ConflictingKey, message, label, help));
        return None;
    }
    // What the profile says for all guests, and over it what it says for this one.
    let mut table = table.clone();
    table.env.extend(profile.env.iter().cloned());
    let before = sink.count();
    let mut guest = guest::check(ctx, &table.overridden_by(by), inputs, sink);
    sink.drop_repeated(before);
    if let (Some(Recipe::Rust(options)), Some(profile)) = (guest.as_mut().map(|guest| &mut guest.recipe), cargo_profile)
        && by.cargo_profile.is_absent()
    {
        options.profile = profile.to_owned();
    }
    guest
}
