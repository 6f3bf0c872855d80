//! The order of the library's folders: `owning` knows no kind, `link` knows only transport, and no folder
//! imports a folder above it. The files beside the folders import no folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each folder, and the other folders that it may import. Every folder may import the files beside the
/// folders (ids, time, metrics and the like), which import none.
const MAY_IMPORT: [(&str, &[&str]); 6] = [
    ("link", &[]),
    ("store", &["owning::kind", "owning::pair"]),
    ("cluster", &["store"]),
    ("owning", &["store", "cluster"]),
    ("engine", &["owning", "store", "cluster", "link"]),
    ("coupon", &["owning", "store", "engine"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // Unit tests may use any kind as their sample.
            if path.file_name().is_none_or(|name| name != "tests") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && path.file_name().is_none_or(|name| name != "tests.rs")
        {
            found.push(path);
        }
    }
}

/// Returns the code of a file without comments and unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns what follows each `crate::` in this code.
fn imports(code: &str) -> Vec<&str> {
    code.split("crate::").skip(1).collect()
}

fn files_of(folder: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![src.join(format!("{folder}.rs"))];
    sources(&src.join(folder), &mut found);
    found
}

/// Returns the files beside the folders. `lib.rs`, which puts kinds together, is not one of them.
fn files_of_the_root() -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    let is_of_a_folder = |path: &PathBuf| {
        let place = path.strip_prefix(&src).unwrap().with_extension("");
        let first = place.iter().next().and_then(|name| name.to_str());
        first == Some("lib") || MAY_IMPORT.iter().any(|(folder, _)| first == Some(folder))
    };
    found.retain(|path| !is_of_a_folder(path));
    found
}

/// Returns true if an import begins with this path.
fn is_of(import: &str, path: &str) -> bool {
    let rest = import.strip_prefix(path);
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

/// Adds what these files import of folders other than their own and those that they may import.
fn find_wrong_imports(folder: &str, files: &[PathBuf], may: &[&str], wrong: &mut Vec<String>) {
    let others = MAY_IMPORT.map(|(other, _)| other);
    for path in files {
        for import in imports(&code(path)) {
            let is_of_another = others
                .iter()
                .any(|other| *other != folder && is_of(import, other));
            if is_of_another && !may.iter().any(|allowed| is_of(import, allowed)) {
                let shown: String = import.chars().take(40).collect();
                wrong.push(format!("{}: crate::{shown}", path.display()));
            }
        }
    }
}

#[test]
fn no_folder_imports_one_that_it_must_not_know() {
    let mut wrong = Vec::new();
    for (folder, may) in MAY_IMPORT {
        let files = files_of(folder);
        assert!(files.len() > 1, "{folder} is empty");
        find_wrong_imports(folder, &files, may, &mut wrong);
    }
    let files = files_of_the_root();
    assert!(files.len() > 9, "{files:?}");
    find_wrong_imports("", &files, &[], &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A type of the coupon that is declared elsewhere needs no import, so its name is looked for as well.
#[test]
fn only_the_coupon_has_types_of_coupons() {
    let folders = MAY_IMPORT.map(|(folder, _)| folder);
    let engine = folders.iter().filter(|folder| **folder != "coupon");
    let files = engine
        .flat_map(|folder| files_of(folder))
        .chain(files_of_the_root());
    let mut wrong = BTreeSet::new();
    for path in files {
        let code = code(&path);
        let words = code.split(|character: char| !(character.is_alphanumeric() || character == '_'));
        for word in words.filter(|word| word.contains("Coupon") || word.contains("Issuance")) {
            wrong.insert(format!("{}: {word}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_link_knows_the_cluster_library() {
    let knows = |path: &PathBuf| code(path).contains("ractor_cluster");
    for (folder, _) in MAY_IMPORT {
        let files = files_of(folder);
        let some = files.iter().find(|path| knows(path));
        assert_eq!(some.is_some(), folder == "link", "{folder}: {some:?}");
    }
}
