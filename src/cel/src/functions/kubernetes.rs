//! Amounts, named formats, semantic versions and questions to the authorizer.

use std::cmp::Ordering;
use std::sync::Arc;

use semver::Version;

use super::{Function, Outcome, no_overload, optional};
use crate::error::EvalError;
use crate::library::authz::{AuthzVal, Step};
use crate::library::format;
use crate::quantity::Quantity;
use crate::value::Value;

pub(super) const TABLE: &[(&str, Function)] = &[
    ("quantity", |name, args| match args {
        [Value::String(text)] => Quantity::parse(text).map(Value::Quantity).map_err(EvalError::new),
        _ => no_overload(name, args),
    }),
    ("isQuantity", |name, args| match args {
        [Value::String(text)] => Ok(Value::Bool(Quantity::parse(text).is_ok())),
        _ => no_overload(name, args),
    }),
    ("sign", |name, args| match args {
        [Value::Quantity(amount)] => Ok(Value::Int(amount.sign())),
        _ => no_overload(name, args),
    }),
    ("isInteger", |name, args| match args {
        [Value::Quantity(amount)] => Ok(Value::Bool(amount.as_integer().is_some())),
        _ => no_overload(name, args),
    }),
    ("asInteger", |name, args| match args {
        [Value::Quantity(amount)] => {
            amount.as_integer().map(Value::Int).ok_or_else(|| EvalError::new("cannot convert value to integer"))
        }
        _ => no_overload(name, args),
    }),
    ("asApproximateFloat", |name, args| match args {
        [Value::Quantity(amount)] => Ok(Value::Double(amount.as_float())),
        _ => no_overload(name, args),
    }),
    ("add", |name, args| arithmetic(name, args, Quantity::plus, 1)),
    ("sub", |name, args| arithmetic(name, args, Quantity::minus, -1)),
    ("isGreaterThan", |name, args| compared(name, args).map(|order| Value::Bool(order == Ordering::Greater))),
    ("isLessThan", |name, args| compared(name, args).map(|order| Value::Bool(order == Ordering::Less))),
    ("compareTo", |name, args| compared(name, args).map(|order| Value::Int(order as i64))),
    ("format.named", |name, args| match args {
        [Value::String(text)] => Ok(match format::named(text) {
            Some(format) => optional::some(Value::Format(format)),
            None => Value::Optional(None),
        }),
        _ => no_overload(name, args),
    }),
    ("format.dns1123Label", named),
    ("format.dns1123Subdomain", named),
    ("format.dns1035Label", named),
    ("format.qualifiedName", named),
    ("format.dns1123LabelPrefix", named),
    ("format.dns1123SubdomainPrefix", named),
    ("format.dns1035LabelPrefix", named),
    ("format.labelValue", named),
    ("format.uri", named),
    ("format.uuid", named),
    ("format.byte", named),
    ("format.date", named),
    ("format.datetime", named),
    ("validate", validate),
    ("semver", |name, args| {
        parse_version(name, args)?.map(|version| Value::Semver(Arc::new(version))).map_err(EvalError::new)
    }),
    ("isSemver", |name, args| Ok(Value::Bool(parse_version(name, args)?.is_ok()))),
    ("major", version_part),
    ("minor", version_part),
    ("patch", version_part),
    ("path", step),
    ("group", step),
    ("serviceAccount", step),
    ("resource", step),
    ("subresource", step),
    ("namespace", step),
    ("name", step),
    ("fieldSelector", step),
    ("labelSelector", step),
    ("check", step),
    ("allowed", decision),
    ("reason", decision),
    ("error", decision),
    ("errored", decision),
];

fn arithmetic<'a>(name: &str, args: &[Value<'a>], both: fn(Quantity, Quantity) -> Quantity, sign: i128) -> Outcome<'a> {
    match args {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(Value::Quantity(both(*a, *b))),
        [Value::Quantity(a), Value::Int(b)] => Ok(Value::Quantity(a.plus_int(*b, sign))),
        _ => no_overload(name, args),
    }
}

fn compared<'a>(name: &str, args: &[Value<'a>]) -> Result<Ordering, EvalError> {
    match args {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(a.partial_cmp(b).unwrap_or(Ordering::Equal)),
        [Value::Semver(a), Value::Semver(b)] => Ok(a.cmp_precedence(b)),
        _ => Err(no_overload(name, args).err().unwrap_or_else(EvalError::no_such_overload)),
    }
}

fn named<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match name.strip_prefix("format.").and_then(format::named) {
        Some(format) if args.is_empty() => Ok(Value::Format(format)),
        _ => no_overload(name, args),
    }
}

/// Absent when the text is of the format, else its problems.
fn validate<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Format(format), Value::String(text)] = args else { return no_overload(name, args) };
    let problems = format.problems(text);
    Ok(if problems.is_empty() {
        Value::Optional(None)
    } else {
        optional::some(Value::from(problems.into_iter().map(Value::from).collect::<Vec<_>>()))
    })
}

fn parse_version<'a>(name: &str, args: &[Value<'a>]) -> Result<Result<Version, String>, EvalError> {
    let (text, lenient) = match args {
        [Value::String(text)] => (text.to_string(), false),
        [Value::String(text), Value::Bool(lenient)] => (text.to_string(), *lenient),
        _ => return Err(no_overload(name, args).err().unwrap_or_else(EvalError::no_such_overload)),
    };
    let text = if lenient { normalize(&text) } else { text };
    Ok(Version::parse(&text).map_err(|error| error.to_string()))
}

/// Without a leading `v` and leading zeros, with all three numbers.
fn normalize(text: &str) -> String {
    let text = text.trim().trim_start_matches('v');
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut parts: Vec<&str> = numbers
        .splitn(3, '.')
        .map(|part| {
            let trimmed = part.trim_start_matches('0');
            if trimmed.is_empty() && !part.is_empty() { "0" } else { trimmed }
        })
        .collect();
    while parts.len() < 3 {
        parts.push("0");
    }
    format!("{}{rest}", parts.join("."))
}

fn version_part<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Semver(version)] = args else { return no_overload(name, args) };
    let part = match name {
        "major" => version.major,
        "minor" => version.minor,
        _ => version.patch,
    };
    i64::try_from(part).map(Value::Int).map_err(|_| EvalError::overflow("integer"))
}

/// Adds to a question, or asks it.
fn step<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let Some(Value::Authz(before)) = args.first() else { return no_overload(name, args) };
    let mut texts = Vec::new();
    for arg in &args[1..] {
        match arg {
            Value::String(text) => texts.push(text.to_string()),
            _ => return no_overload(name, args),
        }
    }
    let mut next = AuthzVal::clone(before);
    let text = |texts: &mut Vec<String>| texts.pop().unwrap_or_default();
    match (name, before.step, texts.len()) {
        ("path", Step::Authorizer, 1) => {
            next.check.path = text(&mut texts);
            if next.check.path.trim().is_empty() {
                return Err(EvalError::new("path must not be empty"));
            }
            next.step = Step::Path;
        }
        ("group", Step::Authorizer, 1) => {
            next.check.group = text(&mut texts);
            next.step = Step::Group;
        }
        ("serviceAccount", Step::Authorizer, 2) => {
            let account = text(&mut texts);
            let namespace = text(&mut texts);
            let problems = |format: &str, value: &str| {
                format::named(format).map(|format| format.problems(value)).filter(|problems| !problems.is_empty())
            };
            if problems("dns1123Subdomain", &account).is_some() {
                return Err(EvalError::new("Invalid service account name"));
            }
            if problems("dns1123Label", &namespace).is_some() {
                return Err(EvalError::new("Invalid service account namespace"));
            }
            next.check.service_account = Some((namespace, account));
        }
        ("resource", Step::Group, 1) => {
            next.check.resource = text(&mut texts);
            if next.check.resource.trim().is_empty() {
                return Err(EvalError::new("resource must not be empty"));
            }
            next.step = Step::Resource;
        }
        ("subresource", Step::Resource, 1) => next.check.subresource = text(&mut texts),
        ("namespace", Step::Resource, 1) => next.check.namespace = text(&mut texts),
        ("name", Step::Resource, 1) => next.check.name = text(&mut texts),
        ("fieldSelector", Step::Resource, 1) => next.check.field_selector = text(&mut texts),
        ("labelSelector", Step::Resource, 1) => next.check.label_selector = text(&mut texts),
        ("check", Step::Resource | Step::Path, 1) => {
            next.check.verb = text(&mut texts);
            next.decision = before.authorizer.check(&next.check);
            next.step = Step::Decision;
        }
        _ => return no_overload(name, args),
    }
    Ok(Value::Authz(Arc::new(next)))
}

fn decision<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Authz(authz)] = args else { return no_overload(name, args) };
    if authz.step != Step::Decision {
        return no_overload(name, args);
    }
    let decision = &authz.decision;
    Ok(match name {
        "allowed" => Value::Bool(decision.allowed),
        "reason" => Value::from(decision.reason.clone()),
        "errored" => Value::Bool(decision.error.is_some()),
        _ => Value::from(decision.error.clone().unwrap_or_default()),
    })
}
