//! Parses as much of Markdown as the documents use.

use std::collections::BTreeSet;
use std::path::Path;

/// A document and its path.
pub struct Document {
    /// Relative to the folder of the workspace.
    pub path: String,
    pub text: String,
}

impl Document {
    pub fn read(root: &Path, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let text = std::fs::read_to_string(root.join(path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self {
            path: path.to_str().unwrap().to_owned(),
            text,
        }
    }

    /// Returns the text without its blocks of code.
    pub fn prose(&self) -> String {
        let mut inside = false;
        let lines = self.text.lines().filter(|line| {
            let is_fence = line.starts_with("```");
            inside ^= is_fence;
            !inside && !is_fence
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Returns the text after the opening fence of each block of code.
    pub fn blocks(&self) -> impl Iterator<Item = &str> {
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix("```"))
            .step_by(2)
    }

    /// Returns the targets of links.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        self.text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target)
    }

    /// Returns what links may name after `#`: headings, and anchors that are set by hand.
    pub fn anchors(&self) -> BTreeSet<String> {
        let prose = self.prose();
        let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace(' ', "-")
                .chars()
                .filter(|character| character.is_alphanumeric() || ['-', '_'].contains(character))
                .collect()
        });
        let by_hand = prose
            .split("<a id=\"")
            .skip(1)
            .filter_map(|rest| rest.split_once('"'))
            .map(|(id, _)| id.to_owned());
        headings.chain(by_hand).collect()
    }
}

/// Returns the section under this heading, with its subsections.
pub fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap();
    let level = heading.split(' ').next().unwrap();
    rest.split(&format!("\n{level} ")).next().unwrap()
}

/// Returns the texts between backticks.
pub fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns the cells of each row of the tables in this text, without the tables' heads.
pub fn table_rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let mut is_head = true;
    text.lines().filter_map(move |line| {
        if !line.starts_with('|') {
            is_head = true;
            return None;
        }
        if is_head {
            is_head = !line.starts_with("|---");
            return None;
        }
        Some(line.trim_matches('|').split(" | ").map(str::trim).collect())
    })
}
