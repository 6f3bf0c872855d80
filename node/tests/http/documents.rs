//! Everything that README.md, CONTRIBUTING.md, CHANGELOG.md, grafana/README.md and docs/ name exists: paths,
//! links, tests, metrics, configuration keys, calls and codes of the API, and types and modules of the
//! glossary.

mod markdown;
mod named;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use node::config::Config;

use crate::support::TestNode;
use markdown::{Document, code_spans, section, table_rows};

/// Maximum length of README.md: what is read in one sitting.
const README_BYTES_MAX: usize = 8_000;

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> Document {
    Document::read(&root(), path)
}

/// Returns all documents.
fn documents() -> Vec<Document> {
    let mut paths: Vec<String> = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "grafana/README.md",
    ]
    .map(str::to_owned)
    .into();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    paths.iter().map(|path| read(path)).collect()
}

/// Returns the sources below this folder of the workspace, or this file, with their text. Returns nothing if
/// the path does not exist.
fn sources(path: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(path)];
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            folders.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.exists() && path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// Returns the names of all keys of the configuration.
fn keys() -> BTreeSet<&'static str> {
    Config::keys().map(|key| key.name).collect()
}

/// Checks that nothing is wrong. A failure lists everything that is wrong, not only the first item.
fn assert_none(what: &str, wrong: &BTreeSet<String>) {
    let lines: Vec<&str> = wrong.iter().map(String::as_str).collect();
    assert!(wrong.is_empty(), "{what}:\n{}", lines.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let bytes = read("README.md").text.len();
    assert!(bytes <= README_BYTES_MAX, "README.md has {bytes} bytes");
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut wrong = BTreeSet::new();
    for document in documents() {
        for link in document.links() {
            if link.starts_with("https://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = match file {
                "" => root().join(&document.path),
                file => root().join(&document.path).parent().unwrap().join(file),
            };
            let leads = path.exists()
                && (heading.is_empty() || Document::read(Path::new(""), &path).anchors().contains(heading));
            if !leads {
                wrong.insert(format!("{}: {link}", document.path));
            }
        }
    }
    assert_none("links that lead nowhere", &wrong);
}

#[test]
fn every_block_of_code_is_run_by_ci_or_says_why_not() {
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    let mut wrong = BTreeSet::new();
    for document in documents() {
        for info in document.blocks() {
            let (language, mark) = info.split_once(' ').unwrap_or((info, ""));
            if !["sh", "python", "js"].contains(&language) {
                continue;
            }
            let is_run = || {
                let block = format!(" {} {language} {mark}", document.path);
                ci.lines()
                    .any(|line| line.starts_with("part ") && line.ends_with(&block))
            };
            let is_excused = mark
                .strip_prefix("not run: ")
                .is_some_and(|reason| !reason.is_empty());
            // A line with another backtick after the fence does not open a block of code.
            if mark.is_empty() || mark.contains('`') || !(is_excused || is_run()) {
                wrong.insert(format!("{}: ```{info}", document.path));
            }
        }
    }
    assert_none("blocks that nothing runs", &wrong);
}

#[tokio::test]
async fn the_page_of_the_api_has_every_call_and_every_code() {
    let node = TestNode::start().await;
    let contract = node.get("/openapi.json").await.body;
    let mut calls = BTreeSet::new();
    for (path, operations) in contract["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let mut parameters: Vec<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            parameters.sort_unstable();
            calls.insert(format!(
                "{} {path} {}",
                method.to_uppercase(),
                parameters.join(" ")
            ));
        }
    }
    // The documents do not list the files of the page that shows the contract.
    calls.remove("GET /docs/{file} ");
    let page = read("docs/api.md");
    let mut listed = BTreeSet::new();
    for cells in table_rows(section(&page.text, "## Calls")) {
        for call in code_spans(cells[0]) {
            let (call, query) = call.split_once('?').unwrap_or((call, ""));
            let mut parameters: Vec<&str> = query
                .split('&')
                .map(|parameter| parameter.trim_end_matches('='))
                .collect();
            parameters.sort_unstable();
            listed.insert(format!("{call} {}", parameters.join(" ")));
        }
    }
    assert_eq!(listed, calls);

    let codes: BTreeSet<&str> = contract["components"]["schemas"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.starts_with("Problem"))
        .map(|(_, schema)| schema["properties"]["code"]["enum"][0].as_str().unwrap())
        .collect();
    let is_code =
        |span: &&str| span.len() > 3 && span.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let named: BTreeSet<&str> = table_rows(section(&page.text, "## Errors"))
        .flat_map(|cells| cells.iter().flat_map(|cell| code_spans(cell)).collect::<Vec<_>>())
        .flat_map(str::split_whitespace)
        .filter(is_code)
        .collect();
    assert_eq!(named, codes);
}
