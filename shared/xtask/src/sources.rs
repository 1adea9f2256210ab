//! The workspace's files, as the chores read them.

use std::path::{Path, PathBuf};

/// The top folder of the workspace.
pub fn root() -> PathBuf {
    // This package is two levels below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `source` without the lines that only mark a listing for the book (`// ANCHOR: name`, `// ANCHOR_END: name`):
/// what differences between milestones and the museum's patches are taken from, so that marking a listing
/// changes neither.
pub fn without_anchors(source: &str) -> String {
    source
        .split_inclusive('\n')
        .filter(|line| !is_anchor(line))
        .collect()
}

/// Whether a line only marks where a listing begins or ends.
fn is_anchor(line: &str) -> bool {
    let comment = line
        .trim_start()
        .trim_start_matches(['/', '#', '-', ';'])
        .trim_start();
    comment.starts_with("ANCHOR: ") || comment.starts_with("ANCHOR_END: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_mark_listings_go() {
        let source = "// ANCHOR: a\nfn a() {}\n    // ANCHOR_END: a\n// An ANCHOR: not a mark\n# ANCHOR: b\n";
        assert_eq!(
            without_anchors(source),
            "fn a() {}\n// An ANCHOR: not a mark\n"
        );
    }
}
