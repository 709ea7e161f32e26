//! Reader of the embedded table; its format stands in `tools/schema.py`.

use std::collections::HashMap;

use super::{Field, ListKind, PatchRule, PatchStrategy, Schema, StructRef, Type, TypeDef};

const PREFIXES: &[(&str, &str)] = &[
    ("meta.", "io.k8s.apimachinery.pkg.apis.meta."),
    ("x.", "io.k8s.apiextensions-apiserver.pkg.apis."),
    ("agg.", "io.k8s.kube-aggregator.pkg.apis."),
    ("~", "io.k8s.api."),
];

fn long_name(short: &str) -> String {
    for (brief, long) in PREFIXES {
        if let Some(rest) = short.strip_prefix(brief) {
            return format!("{long}{rest}");
        }
    }
    short.to_owned()
}

/// Parses the table.
pub(super) fn load(text: &str) -> Result<Schema, String> {
    let lines = || text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    // Names first: fields refer to types that come later.
    let mut indices: HashMap<&str, (u32, bool)> = HashMap::new();
    for line in lines() {
        if let Some(head) = line.strip_prefix("= ") {
            let mut words = head.split(' ');
            let name = words.next().unwrap_or_default();
            indices.insert(name, (indices.len() as u32, words.any(|word| word == "atomic")));
        }
    }
    let mut schema = Schema::default();
    for line in lines() {
        if let Some(head) = line.strip_prefix("= ") {
            let mut words = head.split(' ');
            let mut def = TypeDef { name: long_name(words.next().unwrap_or_default()), ..TypeDef::default() };
            let index = schema.types.len() as u32;
            for word in words {
                if word == "atomic" {
                    def.atomic = true;
                    continue;
                }
                let mut parts = word.splitn(3, '/').map(str::to_owned);
                let (Some(group), Some(version), Some(kind)) = (parts.next(), parts.next(), parts.next()) else {
                    return Err(format!("bad kind in {line:?}"));
                };
                schema.by_kind.insert(word.to_owned(), index);
                def.kinds.push((group, version, kind));
            }
            schema.by_name.insert(def.name.clone(), index);
            schema.types.push(def);
        } else {
            let field = parse_field(line, &indices).ok_or_else(|| format!("bad field {line:?}"))?;
            schema.types.last_mut().ok_or("a field before the first type")?.fields.push(field);
        }
    }
    for def in &mut schema.types {
        def.fields.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(schema)
}

fn parse_field(line: &str, indices: &HashMap<&str, (u32, bool)>) -> Option<Field> {
    let mut words = line.split(' ');
    let mut field = Field {
        name: words.next()?.to_owned(),
        ty: parse_type(words.next()?, indices)?,
        required: false,
        by_value: false,
        patch: PatchRule::default(),
        default: None,
    };
    for word in words {
        match word.split_once('=') {
            None if word == "!" => field.required = true,
            None if word == "v" => field.by_value = true,
            Some(("l", value)) => {
                let Type::List { kind, .. } = &mut field.ty else { return None };
                *kind = match value.split_once(':') {
                    None if value == "a" => ListKind::Atomic,
                    None if value == "s" => ListKind::Set,
                    Some(("m", keys)) => ListKind::Map(keys.split(',').map(str::to_owned).collect()),
                    _ => return None,
                };
            }
            Some(("m", value)) => {
                let (Type::Map { atomic, .. } | Type::Struct { atomic, .. }) = &mut field.ty else { return None };
                *atomic = value == "a";
            }
            Some(("p", value)) => {
                let (strategies, key) = value.split_once(':').map_or((value, None), |(s, k)| (s, Some(k)));
                field.patch.merge_key = key.map(str::to_owned);
                for strategy in strategies.split(',') {
                    match strategy {
                        "retainKeys" => field.patch.retain_keys = true,
                        "merge" => field.patch.strategy = Some(PatchStrategy::Merge),
                        "replace" => field.patch.strategy = Some(PatchStrategy::Replace),
                        _ => return None,
                    }
                }
            }
            Some(("d", value)) => field.default = Some(serde_json::from_str(value).ok()?),
            _ => return None,
        }
    }
    Some(field)
}

fn parse_type(token: &str, indices: &HashMap<&str, (u32, bool)>) -> Option<Type> {
    Some(match token {
        "s" => Type::String,
        "i" => Type::Integer,
        "i32" => Type::Int32,
        "i64" => Type::Int64,
        "b" => Type::Boolean,
        "n" => Type::Number,
        "q" => Type::Quantity,
        "t" => Type::Time,
        "T" => Type::MicroTime,
        "x" => Type::Bytes,
        "I" => Type::IntOrString,
        "*" => Type::Any,
        "o" => Type::Free,
        _ => {
            if let Some(items) = token.strip_prefix("[]") {
                Type::List { items: Box::new(parse_type(items, indices)?), kind: ListKind::Unspecified }
            } else if let Some(values) = token.strip_prefix("{}") {
                Type::Map { values: Box::new(parse_type(values, indices)?), atomic: false }
            } else {
                let (index, atomic) = *indices.get(token.strip_prefix('@')?)?;
                Type::Struct { def: StructRef::Builtin(index), atomic }
            }
        }
    })
}
