//! Printer columns: what `kubectl get` shows of custom resources.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor`.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::jsonpath::Path;
use crate::object::Object;
use crate::resource::Column;
use crate::table::{human_duration, since};
use crate::validation::Fields;

/// One additional column.
#[derive(Debug, Clone)]
struct Cell {
    path: Path,
    kind: String,
}

/// The columns of one version.
#[derive(Debug, Clone)]
pub struct Columns {
    /// Headings, the name's included.
    pub headings: Vec<Column>,
    cells: Vec<Cell>,
}

impl Columns {
    /// Reads `additionalPrinterColumns`; without any there is the age.
    #[must_use]
    pub fn parse(columns: &[Value]) -> Self {
        let age;
        let columns = if columns.is_empty() {
            age = [json!({
                "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
                "description": "When the server made the object; set by the server, the same everywhere, in UTC.",
            })];
            &age[..]
        } else {
            columns
        };
        let mut headings = vec![Column {
            name: "Name".into(),
            kind: "string".into(),
            format: "name".into(),
            description: "Name of the object, unique within its namespace.".into(),
            priority: 0,
        }];
        let mut cells = Vec::new();
        for column in columns {
            // One that cannot be read shows nothing; the others are shown.
            let Ok(path) = Path::parse(column.text("jsonPath")) else { continue };
            let description = match column.text("description") {
                "" => {
                    format!("Custom resource definition column (in JSONPath format): {}", column.text("jsonPath"))
                }
                text => text.to_owned(),
            };
            headings.push(Column {
                name: column.text("name").to_owned().into(),
                kind: column.text("type").to_owned().into(),
                format: column.text("format").to_owned().into(),
                description: description.into(),
                priority: column.int("priority").and_then(|p| i32::try_from(p).ok()).unwrap_or_default(),
            });
            cells.push(Cell { path, kind: column.text("type").to_owned() });
        }
        Self { headings, cells }
    }

    /// The cells of an object's row.
    #[must_use]
    pub fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let value = Value::Object(object.0.clone());
        let cells = self.cells.iter().map(|cell| {
            let found = cell.path.find(&value);
            found.first().map_or(Value::Null, |value| show(value, &cell.kind, now))
        });
        std::iter::once(Value::from(object.name())).chain(cells).collect()
    }
}

fn show(value: &Value, kind: &str, now: Timestamp) -> Value {
    match (kind, value) {
        ("string", Value::String(_)) => value.clone(),
        ("string", Value::Null) => Value::Null,
        ("string", other) => Value::from(other.to_string()),
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|n| n as i64)).map_or(Value::Null, Value::from)
        }
        ("number", Value::Number(number)) => number.as_f64().map_or(Value::Null, |n| {
            // Whole numbers are shown without a fraction.
            if n.fract() == 0.0 && n.abs() < 1e15 { Value::from(n as i64) } else { Value::from(n) }
        }),
        ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(_) => Value::from(since(text, now)),
            Err(_) if text.is_empty() || text == "null" => Value::from("<unknown>"),
            Err(_) => Value::from(human_duration(i64::MIN / 2)),
        },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_follow_the_type_of_the_column() {
        let columns = Columns::parse(&[
            json!({"name": "Spec", "type": "string", "jsonPath": ".spec.cron"}),
            json!({"name": "N", "type": "integer", "jsonPath": ".spec.n", "priority": 1}),
            json!({"name": "List", "type": "string", "jsonPath": ".spec.list"}),
            json!({"name": "On", "type": "boolean", "jsonPath": ".spec.on"}),
            json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
            json!({"name": "Bad", "type": "date", "jsonPath": ".spec.cron"}),
            json!({"name": "None", "type": "string", "jsonPath": ".spec.none"}),
        ]);
        let object = Object::from_value(json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"cron": "* *", "n": 3.0, "list": ["x", 1], "on": true},
        }))
        .expect("an object");
        let now = "2026-01-01T00:05:00Z".parse().expect("a time");
        assert_eq!(
            columns.row(&object, now),
            [
                json!("a"),
                json!("* *"),
                json!(3),
                json!("[\"x\",1]"),
                json!(true),
                json!("5m"),
                json!("<invalid>"),
                Value::Null,
            ]
        );
        assert_eq!(columns.headings.len(), 8);
        assert_eq!(columns.headings[2].priority, 1);
        let default = Columns::parse(&[]);
        assert_eq!(default.row(&object, now), [json!("a"), json!("5m")]);
    }
}
