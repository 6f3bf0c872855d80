//! Names in the documents that must be names in the sources.

use std::collections::BTreeSet;

use super::markdown::{code_spans, section, table_rows};
use super::{assert_none, documents, keys, read, root, sources};

/// Folders of the workspace. A text in a document that begins with one of these is a path.
const FOLDERS: [&str; 9] = [
    ".cargo/",
    ".ci/",
    "actors/",
    "bench/",
    "cluster-config/",
    "docs/",
    "grafana/",
    "node/",
    "testkit/",
];

/// Folders with the programs' sources.
const SOURCES: [&str; 4] = ["actors/src", "node/src", "testkit/src", "bench/src"];

fn is_path(text: &str) -> bool {
    FOLDERS.iter().any(|folder| text.starts_with(folder))
}

/// Returns the words of a text. Each may be a name.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !(character.is_alphanumeric() || character == '_'))
}

#[test]
fn every_path_in_the_documents_exists() {
    let mut wrong = BTreeSet::new();
    for document in documents() {
        let tokens = document
            .text
            .split(|character: char| !(character.is_ascii_alphanumeric() || "._-/".contains(character)))
            .map(|token| token.trim_end_matches('.'));
        for path in tokens.filter(|token| is_path(token)) {
            if !root().join(path).exists() {
                wrong.insert(format!("{}: {path}", document.path));
            }
        }
    }
    assert_none("paths that do not exist", &wrong);
}

#[test]
fn every_proof_is_a_test() {
    let mut wrong = BTreeSet::new();
    let mut proofs = 0;
    let page = read("docs/testing.md");
    for cells in table_rows(section(&page.text, "## Promises and their proof")) {
        let mut file = None;
        for span in code_spans(cells.last().unwrap()) {
            if is_path(span) {
                file = Some(span);
                continue;
            }
            proofs += 1;
            let is_there = file.is_some_and(|file| {
                sources(file)
                    .iter()
                    .any(|(_, text)| words(text).any(|word| word == span))
            });
            if !is_there {
                wrong.insert(format!("{}: {span}", file.unwrap_or_default()));
            }
        }
    }
    assert_none("proofs that are no tests", &wrong);
    assert!(proofs > 20, "{proofs} proofs");
}

#[test]
fn every_command_to_replay_a_test_names_a_test() {
    let mut wrong = BTreeSet::new();
    let mut commands = 0;
    for document in documents() {
        for line in document.text.lines() {
            let Some((_, flags)) = line.split_once("cargo test --workspace --test ") else {
                continue;
            };
            let mut flags = flags.split_whitespace();
            let program = flags.next().unwrap_or_default();
            let paths = ["actors", "bench", "node"]
                .map(|package| [".rs", ""].map(|end| format!("{package}/tests/{program}{end}")));
            let texts: Vec<_> = paths.iter().flatten().flat_map(|path| sources(path)).collect();
            commands += 1;
            let filter = flags.next().filter(|filter| *filter != "--").unwrap_or_default();
            let is_there = texts.iter().any(|(path, text)| {
                path.file_stem().is_some_and(|stem| stem == filter) || text.contains(&format!("fn {filter}"))
            });
            if !is_there {
                wrong.insert(format!("{}: {}", document.path, line.trim()));
            }
        }
    }
    assert_none("commands that run no test", &wrong);
    assert!(commands > 5, "{commands} commands");
}

#[test]
fn every_metric_in_the_documents_exists() {
    let texts: Vec<_> = SOURCES.iter().flat_map(|folder| sources(folder)).collect();
    let mut wrong = BTreeSet::new();
    for document in documents() {
        for name in code_spans(&document.prose()) {
            let is_there = || {
                texts
                    .iter()
                    .any(|(_, text)| text.contains(&format!("\"{name}\"")))
            };
            if name.starts_with("coupon_") && !is_there() {
                wrong.insert(format!("{}: {name}", document.path));
            }
        }
    }
    assert_none("metrics that do not exist", &wrong);
}

#[test]
fn every_key_in_the_documents_exists() {
    let keys = keys();
    let groups: BTreeSet<&str> = keys
        .iter()
        .filter_map(|key| Some(key.split_once('.')?.0))
        .collect();
    let mut wrong = BTreeSet::new();
    for document in documents() {
        for span in code_spans(&document.prose()) {
            let key = match span.strip_prefix("FIRSTCOME__") {
                Some(variable) => variable
                    .split('=')
                    .next()
                    .unwrap_or_default()
                    .replace("__", ".")
                    .to_lowercase(),
                None => span.split([' ', '=']).next().unwrap_or_default().to_owned(),
            };
            let is_key = key.split_once('.').is_some_and(|(group, rest)| {
                groups.contains(group) && !rest.is_empty() && !["rs", "toml", "*"].contains(&rest)
            });
            let is_there = || {
                keys.iter()
                    .any(|known| *known == key || known.starts_with(&format!("{key}.")))
            };
            if is_key && !is_there() {
                wrong.insert(format!("{}: {span}", document.path));
            }
        }
    }
    assert_none("keys that do not exist", &wrong);
}

/// Returns the names in the last column of the glossary.
fn glossary() -> BTreeSet<String> {
    let page = read("docs/glossary.md");
    table_rows(&page.text)
        .flat_map(|cells| code_spans(cells.last().unwrap()))
        .map(str::to_owned)
        .collect()
}

/// Folders of `actors/src`. The glossary has every module and every public type in these folders.
const VOCABULARY: [&str; 6] = ["owning", "cluster", "link", "engine", "store", "coupon"];

/// Folders and modules below [`VOCABULARY`] whose types do not matter elsewhere: rows and messages, for each
/// database and link.
const DETAILS: [&str; 6] = ["mysql", "sqlite", "rows", "wire", "sample", "tests"];

/// Returns the lines of a source that are not comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Returns the public type that a line declares.
fn public_type(line: &str) -> Option<&str> {
    let declared = ["pub struct ", "pub enum ", "pub trait "]
        .iter()
        .find_map(|start| line.strip_prefix(start))?;
    words(declared).next()
}

#[test]
fn every_name_in_the_glossary_is_a_type_or_a_module() {
    let texts: Vec<_> = SOURCES.iter().flat_map(|folder| sources(folder)).collect();
    // Some types are declared by macros, so every word of the code counts. Comments do not count, because
    // they may still have a former name.
    let in_use: BTreeSet<&str> = texts
        .iter()
        .flat_map(|(_, text)| code(text).flat_map(words))
        .collect();
    let modules: BTreeSet<_> = texts.iter().filter_map(|(path, _)| path.file_stem()).collect();
    let is_there = |name: &String| {
        if name.starts_with(char::is_uppercase) {
            in_use.contains(name.as_str())
        } else {
            modules.contains(std::ffi::OsStr::new(name))
        }
    };
    let wrong = glossary().into_iter().filter(|name| !is_there(name)).collect();
    assert_none("names in the glossary that are neither types nor modules", &wrong);
}

#[test]
fn every_module_of_the_vocabulary_is_in_the_glossary() {
    let glossary = glossary();
    let mut wrong = BTreeSet::new();
    for folder in VOCABULARY {
        for entry in std::fs::read_dir(root().join("actors/src").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.is_file() && name != "tests" && !glossary.contains(&name) {
                wrong.insert(format!("{folder}/{name}"));
            }
        }
    }
    assert_none("modules that the glossary lacks", &wrong);
}

#[test]
fn every_public_type_of_the_vocabulary_is_in_the_glossary() {
    let glossary = glossary();
    let (mut wrong, mut types) = (BTreeSet::new(), 0);
    for folder in VOCABULARY {
        let own = sources(&format!("actors/src/{folder}.rs"));
        for (path, text) in own.into_iter().chain(sources(&format!("actors/src/{folder}"))) {
            let mut modules = path.strip_prefix(root().join("actors/src")).unwrap().iter();
            if modules.any(|module| DETAILS.contains(&module.to_str().unwrap().trim_end_matches(".rs"))) {
                continue;
            }
            for name in text.lines().filter_map(public_type) {
                types += 1;
                if !glossary.contains(name) {
                    wrong.insert(format!("{}: {name}", path.display()));
                }
            }
        }
    }
    assert_none("types that the glossary lacks", &wrong);
    assert!(types > 100, "{types} types");
}
