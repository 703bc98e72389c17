//! Checks of what an image asks for: `grants` and `limits`.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::grant;
use crate::grant::{GRANTS_MAX, Grant, GrantError, Limit, LimitError, LimitValue, REQUEST_BYTES_MAX, Request};
use crate::wetfile::diagnostic::{Code, Diagnostic, Sink, listed, quoted};
use crate::wetfile::schema::{ImageTable, Written};
use crate::wetfile::suggest::nearest;

/// The forms of what can be asked for.
const FORMS: [&str; 6] = ["connect[:NETWORK]", "network[:NETWORK]", "mount:DST[:rw]", "env:NAME", "fetch", "terminal"];

/// What the image asks for, as far as it is in order.
pub(super) fn check(table: &ImageTable, sink: &mut Sink<'_>) -> Request {
    let mut request = Request { grants: grants(table, sink), ..Request::default() };
    for (name, value) in table.limits.given().map_or(&[][..], |limits| &limits.value) {
        if let Some((limit, value)) = limit(table, name, value, sink) {
            request.limits.set(limit, value);
        }
    }
    let size = request.to_text().len() as u64;
    if let Some(grants) = table.grants.given().filter(|_| size > REQUEST_BYTES_MAX) {
        let message = format!("image {} asks for more than a cell reads", quoted(&table.name.value));
        let text = format!("this takes {size} bytes, and {REQUEST_BYTES_MAX} are read");
        report(Code::TooMany, message, &grants.span, text, "ask for less", sink);
    }
    request
}

fn grants(table: &ImageTable, sink: &mut Sink<'_>) -> Vec<Grant> {
    let (mut grants, mut kept) = (Vec::new(), Vec::new());
    let mut places = BTreeMap::<String, &Written<String>>::new();
    for written in table.grants.given().map_or(&[][..], |grants| &grants.value) {
        if sink.is_full() {
            break;
        }
        let grant = match Grant::parse_request(&written.value) {
            Ok(grant) => grant,
            Err(error) => {
                report_grant(written, error, sink);
                continue;
            }
        };
        match places.get(&place(&grant)) {
            Some(earlier) => {
                let what = match &grant {
                    Grant::Mount(mount) => format!("two mounts at {}", quoted(&mount.target)),
                    _ => format!("{} twice", quoted(&written.value)),
                };
                let message = format!("image {} asks for {what}", quoted(&table.name.value));
                let label = sink.label(&written.span, "again here");
                let first = sink.label(&earlier.span, "first here");
                let diagnostic = Diagnostic::error(Code::InvalidValue, message, label, "remove one of the two");
                sink.push(diagnostic.with_secondary([first]));
            }
            None => {
                places.insert(place(&grant), written);
                grants.push(grant);
                kept.push(written);
            }
        }
    }
    if let Err((index, error)) = grant::check(&grants) {
        report_grant(kept[index], error, sink);
    }
    grants
}

/// What only one grant can have: two are one too many if they are equal, or mounts at one place.
fn place(grant: &Grant) -> String {
    match grant {
        Grant::Mount(mount) => format!("mount:{}", mount.target),
        grant => grant.to_string(),
    }
}

fn report_grant(written: &Written<String>, error: GrantError, sink: &mut Sink<'_>) {
    let message = format!("{} is nothing that an image can ask for", quoted(&written.value));
    let (text, help) = match error {
        GrantError::Unknown { name, .. } => {
            let help = match nearest(&name, Grant::NAMES) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}", listed(&FORMS)),
            };
            ("there is no such grant".to_owned(), help)
        }
        GrantError::Malformed { form, .. } => ("not of the right form".to_owned(), format!("write {form}")),
        GrantError::Place { reason, .. } => (reason.to_owned(), "write a path such as `mount:/data`".to_owned()),
        GrantError::OwnFolder => ("this is the cell's own".to_owned(), "mount below it, such as at /tmp/x".to_owned()),
        GrantError::TooMany => (format!("there may be {GRANTS_MAX} grants"), "ask for less".to_owned()),
        other => (other.to_string(), "write another".to_owned()),
    };
    report(Code::InvalidValue, message, &written.span, text, help, sink);
}

fn limit(
    table: &ImageTable,
    name: &Written<String>,
    value: &Written<String>,
    sink: &mut Sink<'_>,
) -> Option<(Limit, LimitValue)> {
    let Ok(limit) = name.value.parse::<Limit>() else {
        if !sink.is_full() {
            let names: Vec<&str> = Limit::all().map(Limit::name).collect();
            let message = format!("unknown limit {} of image {}", quoted(&name.value), quoted(&table.name.value));
            let help = match nearest(&name.value, names.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}", listed(&names)),
            };
            report(Code::UnknownKey, message, &name.span, "there is no such limit", help, sink);
        }
        return None;
    };
    match limit.parse_value(&value.value) {
        Ok(value) => return Some((limit, value)),
        Err(LimitError::Value { reason, .. }) => {
            let message = format!("{} is no value for the limit `{limit}`", quoted(&value.value));
            report(Code::InvalidValue, message, &value.span, reason, example(limit), sink);
        }
        Err(other) => report(Code::InvalidValue, other.to_string(), &value.span, "here", example(limit), sink),
    }
    None
}

/// How a limit can be written.
fn example(limit: Limit) -> String {
    match limit.default_value() {
        None => format!("write a time, such as `{limit} = \"10s\"`"),
        Some(LimitValue::Count(count)) => format!("write a number, such as `{limit} = {count}`"),
        Some(default) => format!("write a size, such as `{limit} = \"{default}\"`"),
    }
}

fn report(
    code: Code,
    message: String,
    span: &Range<usize>,
    text: impl Into<String>,
    help: impl Into<String>,
    sink: &mut Sink<'_>,
) {
    let label = sink.label(span, text);
    sink.push(Diagnostic::error(code, message, label, help));
}
