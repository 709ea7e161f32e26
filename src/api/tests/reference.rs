//! The table of kinds in `docs/kubernetes-api.md` is what the registry says.
//! `BARQUE_UPDATE_DOCS=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use barque_api::kinds;
use barque_api::resource::{Resource, Verb};

const BEGIN: &str = "<!-- kinds: begin -->\n";
const END: &str = "<!-- kinds: end -->";

fn verbs(row: &Resource) -> String {
    let ordinary = Verb::ALL.iter().all(|verb| row.verbs.contains(verb));
    if ordinary {
        return "all".to_owned();
    }
    if Verb::ALL.iter().filter(|verb| **verb != Verb::DeleteCollection).all(|verb| row.verbs.contains(verb)) {
        return "all but deletecollection".to_owned();
    }
    row.verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>().join(", ")
}

fn table() -> String {
    let mut text = String::from(
        "| group/version | kind | resource | short | scope | verbs | subresources | field selectors |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for row in kinds::builtin().rows() {
        let list = |items: Vec<&str>| items.join(", ");
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.api_version(),
            row.kind,
            row.plural,
            list(row.short_names.iter().map(AsRef::as_ref).collect()),
            if row.namespaced { "namespace" } else { "cluster" },
            verbs(row),
            list(row.subresources.iter().map(|s| s.name.as_ref()).collect()),
            list(row.strategy.field_names.to_vec()),
        )
        .expect("texts can be written to");
    }
    text
}

#[test]
fn the_documented_table_is_the_registry() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kubernetes-api.md");
    let document = std::fs::read_to_string(&path).expect("the document is there");
    let (before, rest) = document.split_once(BEGIN).expect("the table has a beginning");
    let (found, after) = rest.split_once(END).expect("the table has an end");
    let wanted = table();
    if std::env::var_os("BARQUE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).expect("the document can be written");
        return;
    }
    assert_eq!(found, wanted, "write it anew with BARQUE_UPDATE_DOCS=1");
}
