//! The bug museum as a page: every bug with its patch and with what its check says.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::patch::Patch;

/// The page, in Markdown without a title: by milestone, in the order of the patches' names.
pub fn page(root: &Path, patches: &[Patch]) -> Result<String> {
    let mut page = String::new();
    let mut milestone = "";
    for patch in patches {
        if patch.milestone != milestone {
            milestone = &patch.milestone;
            writeln!(page, "## {milestone}\n\n[The chapter]({milestone}.md)\n")?;
        }
        exhibit(&mut page, root, patch).with_context(|| patch.name.clone())?;
    }
    Ok(page.trim_end().to_owned() + "\n")
}

fn exhibit(page: &mut String, root: &Path, patch: &Patch) -> Result<()> {
    writeln!(page, "### `{}` {{#{}}}\n", patch.name, patch.name)?;
    writeln!(
        page,
        "**{}.** {}\n",
        capitalised(&patch.bug),
        patch.explanation
    )?;
    let traps: Vec<String> = patch
        .traps
        .iter()
        .map(|trap| format!("[trap {trap}](traps.md#trap-{trap})"))
        .collect();
    let traps = match traps.len() {
        0 => String::new(),
        _ => format!("; {}", traps.join(", ")),
    };
    writeln!(page, "Caught by `{}`{traps}.\n", patch.check)?;
    folded(page, "The patch", "diff", &patch.diff)?;
    let recorded = format!("book/generated/bugs/{}.txt", patch.name);
    // There is none until `cargo xtask bugs --record` has seen the bug caught.
    if let Ok(message) = fs::read_to_string(root.join(recorded)) {
        folded(page, "What the check says", "text", &message)?;
    }
    Ok(())
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters).collect()
    })
}

fn folded(page: &mut String, summary: &str, language: &str, text: &str) -> Result<()> {
    // Longer than any fence in the text.
    const FENCE: &str = "````";
    writeln!(page, "<details><summary>{summary}</summary>\n")?;
    writeln!(page, "{FENCE}{language}\n{}\n{FENCE}\n", text.trim_end())?;
    writeln!(page, "</details>\n")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_stands_under_its_milestone() {
        let patch = |name: &str, milestone: &str| Patch {
            name: name.to_owned(),
            bug: "forgets".to_owned(),
            milestone: milestone.to_owned(),
            check: "echoes".to_owned(),
            message: String::new(),
            traps: vec![1, 12],
            explanation: "One sentence.".to_owned(),
            diff: "-a\n+b\n".to_owned(),
        };
        let patches = [
            patch("m4-x", "m4-edge"),
            patch("m4-y", "m4-edge"),
            patch("m5-x", "m5-contexts"),
        ];
        let page = page(Path::new("/nowhere"), &patches).unwrap();
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
        assert_eq!(
            headings,
            [
                "## m4-edge",
                "### `m4-x` {#m4-x}",
                "### `m4-y` {#m4-y}",
                "## m5-contexts",
                "### `m5-x` {#m5-x}"
            ]
        );
        assert!(page.contains("[trap 1](traps.md#trap-1), [trap 12](traps.md#trap-12)"));
        assert!(page.contains("**Forgets.** One sentence."));
        assert!(page.contains("````diff\n-a\n+b\n````"));
    }
}
