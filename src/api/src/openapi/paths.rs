//! The paths of resources: one operation for each verb a row has.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::schemas::{PATCH, Style, definition_name};
use crate::patch::PatchType;
use crate::resource::{Resource, Verb};

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

const TEXT: &str = "string";
const NUMBER: &str = "integer";
const FLAG: &str = "boolean";

type Parameter = (&'static str, &'static str);
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", FLAG),
    ("continue", TEXT),
    ("fieldSelector", TEXT),
    ("labelSelector", TEXT),
    ("limit", NUMBER),
    ("resourceVersion", TEXT),
    ("resourceVersionMatch", TEXT),
    ("sendInitialEvents", FLAG),
    ("timeoutSeconds", NUMBER),
    ("watch", FLAG),
];
const WRITE: &[Parameter] = &[("dryRun", TEXT), ("fieldManager", TEXT), ("fieldValidation", TEXT)];
const FORCE: &[Parameter] = &[("force", FLAG)];
const DELETE: &[Parameter] =
    &[("dryRun", TEXT), ("gracePeriodSeconds", NUMBER), ("orphanDependents", FLAG), ("propagationPolicy", TEXT)];

/// The paths of `rows`; puts the definitions they refer to into `roots`.
pub(super) fn build(rows: &[&Resource], style: Style, roots: &mut BTreeSet<String>) -> Map<String, Value> {
    let mut out = Map::new();
    for row in rows {
        resource(row, style, roots, &mut out);
    }
    out
}

/// What an operation is about.
struct Subject<'a> {
    row: &'a Resource,
    /// Group, version and kind of the body.
    kind: (&'a str, &'a str, &'a str),
    /// `Status` for the subresource, or "".
    suffix: String,
    namespaced: bool,
    style: Style,
    /// Whether the answer is text and no object.
    stream: bool,
}

fn resource(row: &Resource, style: Style, roots: &mut BTreeSet<String>, out: &mut Map<String, Value>) {
    let prefix = format!("/{}", super::document_path(&row.group, &row.version));
    let main = Subject {
        row,
        kind: (&row.group, &row.version, &row.kind),
        suffix: String::new(),
        namespaced: row.namespaced,
        style,
        stream: false,
    };
    let collection = if row.namespaced {
        format!("{prefix}/namespaces/{{namespace}}/{}", row.plural)
    } else {
        format!("{prefix}/{}", row.plural)
    };
    let item = format!("{collection}/{{name}}");
    let mut verbs = |path: String, subject: &Subject<'_>, named: bool, list: &[(Verb, &str)], have: &[Verb]| {
        let mut methods = Map::new();
        for (verb, method) in list {
            if have.contains(verb) {
                methods.insert((*method).to_owned(), subject.operation(*verb, roots));
            }
        }
        if methods.is_empty() {
            return;
        }
        methods.insert("parameters".to_owned(), subject.path_parameters(named));
        out.insert(path, Value::Object(methods));
    };
    let on_collection = [(Verb::List, "get"), (Verb::Create, "post"), (Verb::DeleteCollection, "delete")];
    let on_item = [(Verb::Get, "get"), (Verb::Update, "put"), (Verb::Patch, "patch"), (Verb::Delete, "delete")];
    verbs(collection, &main, false, &on_collection, row.verbs);
    verbs(item.clone(), &main, true, &on_item, row.verbs);
    if row.namespaced {
        let everywhere = Subject { namespaced: false, suffix: "ForAllNamespaces".to_owned(), kind: main.kind, ..main };
        verbs(format!("{prefix}/{}", row.plural), &everywhere, false, &[(Verb::List, "get")], row.verbs);
    }
    for subresource in &row.subresources {
        let subject = Subject {
            row,
            kind: (&subresource.group, &subresource.version, &subresource.kind),
            suffix: capitalized(&subresource.name),
            namespaced: row.namespaced,
            style,
            stream: matches!(&*subresource.name, "log" | "exec" | "attach" | "portforward" | "proxy"),
        };
        let methods = [(Verb::Create, "post"), on_item[0], on_item[1], on_item[2], on_item[3]];
        verbs(format!("{item}/{}", subresource.name), &subject, true, &methods, subresource.verbs);
    }
}

impl Subject<'_> {
    /// A connection to what is behind the object, whatever the verb: `exec`,
    /// `proxy` and the like. Their kinds are the options they take.
    fn connection(&self, verb: Verb) -> Option<Value> {
        let (group, version, kind) = self.kind;
        let method = match verb {
            Verb::Create => "Post",
            Verb::Delete => "Delete",
            Verb::Get => "Get",
            Verb::Patch => "Patch",
            Verb::Update => "Put",
            Verb::DeleteCollection | Verb::List | Verb::Watch => return None,
        };
        if !self.stream || !kind.ends_with("Options") {
            return None;
        }
        let scope = if self.namespaced { "Namespaced" } else { "" };
        let version_word = capitalized(&self.row.version);
        let id = format!("connect{}{version_word}{method}{scope}{}{}", self.group_word(), self.row.kind, self.suffix);
        let mut operation = json!({
            "operationId": id,
            "tags": [self.tag()],
            "x-kubernetes-action": "connect",
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            "responses": {
                "200": self.response("200", json!({"type": "string"})),
                "401": {"description": "Unauthorized"},
            },
        });
        if self.style == Style::V2 {
            operation["schemes"] = json!(["https"]);
            operation["consumes"] = json!(["*/*"]);
            operation["produces"] = json!(self.produces());
        }
        Some(operation)
    }

    fn operation(&self, verb: Verb, roots: &mut BTreeSet<String>) -> Value {
        if let Some(connection) = self.connection(verb) {
            return connection;
        }
        let (group, version, kind) = self.kind;
        let name = definition_name(group, version, kind);
        let list_name = definition_name(group, version, &format!("{kind}List"));
        let (word, action) = match verb {
            Verb::Create => ("create", "post"),
            Verb::Delete => ("delete", "delete"),
            Verb::DeleteCollection => ("delete", "deletecollection"),
            Verb::Get => ("read", "get"),
            Verb::List | Verb::Watch => ("list", "list"),
            Verb::Patch => ("patch", "patch"),
            Verb::Update => ("replace", "put"),
        };
        let collection = if verb == Verb::DeleteCollection { "Collection" } else { "" };
        let scope = if self.namespaced { "Namespaced" } else { "" };
        let id = format!(
            "{word}{}{}{collection}{scope}{}{}",
            self.group_word(),
            capitalized(&self.row.version),
            self.row.kind,
            self.suffix
        );
        let (answer, codes): (&str, &[&str]) = match verb {
            Verb::Create => (&name, &["200", "201", "202"]),
            Verb::Update | Verb::Patch => (&name, &["200", "201"]),
            Verb::Delete => (STATUS, &["200", "202"]),
            Verb::DeleteCollection => (STATUS, &["200"]),
            Verb::List | Verb::Watch => (&list_name, &["200"]),
            Verb::Get => (&name, &["200"]),
        };
        let mut operation = json!({
            "operationId": id,
            "tags": [self.tag()],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let query: Vec<&[Parameter]> = match verb {
            Verb::Create | Verb::Update => vec![WRITE],
            Verb::Patch => vec![WRITE, FORCE],
            Verb::Delete => vec![DELETE],
            Verb::DeleteCollection => vec![LIST, DELETE],
            Verb::List | Verb::Watch => vec![LIST],
            Verb::Get => vec![],
        };
        let mut parameters: Vec<Value> =
            query.into_iter().flatten().map(|(name, kind)| self.parameter(name, "query", kind)).collect();
        let body = match verb {
            Verb::Create | Verb::Update => Some(name.as_str()),
            Verb::Patch => Some(PATCH),
            Verb::Delete | Verb::DeleteCollection => Some(DELETE_OPTIONS),
            Verb::Get | Verb::List | Verb::Watch => None,
        };
        if let Some(body) = body {
            roots.insert(body.to_owned());
            self.body(body, verb, &mut operation, &mut parameters);
        }
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        let mut responses = Map::new();
        for code in codes {
            let schema = if self.stream {
                json!({"type": "string"})
            } else {
                roots.insert(answer.to_owned());
                self.style.reference(answer)
            };
            responses.insert((*code).to_owned(), self.response(code, schema));
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        operation["responses"] = Value::Object(responses);
        if self.style == Style::V2 {
            operation["schemes"] = json!(["https"]);
            operation["produces"] = json!(self.produces());
        }
        operation
    }

    fn produces(&self) -> &'static [&'static str] {
        if self.stream && self.kind.2.ends_with("Options") {
            &["*/*"]
        } else if self.stream {
            &["text/plain"]
        } else {
            &["application/json", "application/yaml"]
        }
    }

    fn response(&self, code: &str, schema: Value) -> Value {
        let description = match code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        if self.style == Style::V2 {
            return json!({"description": description, "schema": schema});
        }
        let content: Map<String, Value> =
            self.produces().iter().map(|kind| ((*kind).to_owned(), json!({"schema": schema}))).collect();
        json!({"description": description, "content": content})
    }

    fn body(&self, name: &str, verb: Verb, operation: &mut Value, parameters: &mut Vec<Value>) {
        let schema = self.style.reference(name);
        let required = matches!(verb, Verb::Create | Verb::Update | Verb::Patch);
        let builtin =
            crate::schema::builtin().by_name(&definition_name(self.kind.0, self.kind.1, self.kind.2)).is_some();
        let types: Vec<&str> = match verb {
            // Strategic merge patches need a built-in shape.
            Verb::Patch => {
                let list = PatchType::CONTENT_TYPES.iter().copied();
                list.filter(|kind| builtin || !kind.contains("strategic")).collect()
            }
            _ => vec!["*/*"],
        };
        if self.style == Style::V2 {
            let mut parameter = json!({"in": "body", "name": "body", "schema": schema});
            if required {
                parameter["required"] = json!(true);
            }
            parameters.insert(0, parameter);
            operation["consumes"] = json!(types);
        } else {
            let content: Map<String, Value> =
                types.iter().map(|kind| ((*kind).to_owned(), json!({"schema": schema}))).collect();
            operation["requestBody"] = json!({"content": content});
            if required {
                operation["requestBody"]["required"] = json!(true);
            }
        }
    }

    fn parameter(&self, name: &str, place: &str, kind: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place});
        if self.style == Style::V2 {
            parameter["type"] = json!(kind);
            parameter["uniqueItems"] = json!(true);
        } else {
            parameter["schema"] = json!({"type": kind, "uniqueItems": true});
        }
        if place == "path" {
            parameter["required"] = json!(true);
        }
        parameter
    }

    fn path_parameters(&self, named: bool) -> Value {
        let mut list = Vec::new();
        if named {
            list.push(self.parameter("name", "path", TEXT));
        }
        if self.namespaced {
            list.push(self.parameter("namespace", "path", TEXT));
        }
        list.push(self.parameter("pretty", "query", TEXT));
        Value::Array(list)
    }

    fn group_word(&self) -> String {
        let group = self.row.group.strip_suffix(".k8s.io").unwrap_or(&self.row.group);
        if group.is_empty() { "Core".to_owned() } else { group.split('.').map(capitalized).collect() }
    }

    fn tag(&self) -> String {
        let group = self.group_word();
        format!("{}{}_{}", group[..1].to_ascii_lowercase(), &group[1..], self.row.version)
    }
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}
