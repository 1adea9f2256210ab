//! What of a page is prose, code, HTML, a link or a heading.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A text, and where in it what is.
pub struct Markdown {
    /// As it is written.
    pub text: String,
    /// The offsets at which lines begin.
    starts: Vec<usize>,
    /// Of the same length as the text: prose stays, all else is blank.
    pub prose: String,
    /// Code blocks.
    pub code: Vec<Code>,
    /// Code within prose.
    pub spans: Vec<Range<usize>>,
    /// Pieces of HTML, comments among them.
    pub html: Vec<Range<usize>>,
    /// Links and images.
    pub links: Vec<Link>,
    /// Headings.
    pub headings: Vec<Heading>,
}

/// A code block.
pub struct Code {
    /// All of it, with its fence.
    pub span: Range<usize>,
    /// What is behind the opening fence; `None` without a fence, indented.
    pub info: Option<String>,
    /// The lines between the fences.
    pub content: String,
    /// The text of the level-2 heading that it stands under.
    pub section: String,
}

/// A link or an image.
pub struct Link {
    /// Where.
    pub start: usize,
    /// Where to.
    pub to: String,
    /// Whether it is an image.
    pub is_image: bool,
}

/// A heading.
pub struct Heading {
    /// Where.
    pub start: usize,
    /// From 1.
    pub level: usize,
    /// As a reader sees it.
    pub text: String,
}

impl Markdown {
    /// Looks at a text.
    pub fn new(text: String) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let mut markdown = Self {
            prose: String::new(),
            text,
            starts,
            code: Vec::new(),
            spans: Vec::new(),
            html: Vec::new(),
            links: Vec::new(),
            headings: Vec::new(),
        };
        markdown.read();
        markdown
    }

    /// The line of an offset, from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    fn read(&mut self) {
        // What mdBook understands.
        let options = Options::ENABLE_TABLES
            | Options::ENABLE_FOOTNOTES
            | Options::ENABLE_STRIKETHROUGH
            | Options::ENABLE_TASKLISTS
            | Options::ENABLE_HEADING_ATTRIBUTES
            | Options::ENABLE_DEFINITION_LIST
            | Options::ENABLE_GFM;
        let mut prose: Vec<u8> = blank(&self.text);
        let mut code: Option<Code> = None;
        let mut heading: Option<Heading> = None;
        let mut section = String::new();
        for (event, span) in Parser::new_ext(&self.text, options).into_offset_iter() {
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    code = Some(Code {
                        info: match kind {
                            CodeBlockKind::Fenced(info) => Some(info.into_string()),
                            CodeBlockKind::Indented => None,
                        },
                        span,
                        content: String::new(),
                        section: section.clone(),
                    });
                }
                Event::End(TagEnd::CodeBlock) => self.code.extend(code.take()),
                Event::Start(Tag::Heading { level, .. }) => {
                    heading = Some(Heading {
                        start: span.start,
                        level: level as usize,
                        text: String::new(),
                    });
                }
                Event::End(TagEnd::Heading(_)) => {
                    if let Some(heading) = heading.take() {
                        if heading.level == 2 {
                            section.clone_from(&heading.text);
                        }
                        self.headings.push(heading);
                    }
                }
                Event::Start(Tag::Link { dest_url, .. }) => self.links.push(Link {
                    start: span.start,
                    to: dest_url.into_string(),
                    is_image: false,
                }),
                Event::Start(Tag::Image { dest_url, .. }) => self.links.push(Link {
                    start: span.start,
                    to: dest_url.into_string(),
                    is_image: true,
                }),
                Event::Text(text) => {
                    if let Some(code) = &mut code {
                        code.content.push_str(&text);
                        continue;
                    }
                    if let Some(heading) = &mut heading {
                        heading.text.push_str(&text);
                    }
                    prose[span.clone()].copy_from_slice(&self.text.as_bytes()[span]);
                }
                Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.text.push_str(&text);
                    }
                    self.spans.push(span);
                }
                Event::Html(_) | Event::InlineHtml(_) => self.html.push(span),
                _ => {}
            }
        }
        self.prose = String::from_utf8_lossy(&prose).into_owned();
    }

    /// Words of prose and of code within it.
    pub fn words(&self) -> usize {
        let is_word = |word: &&str| word.contains(char::is_alphanumeric);
        let prose = self.prose.split_whitespace().filter(is_word).count();
        let code = self.spans.iter().map(|span| {
            let words = self.text[span.clone()].split_whitespace();
            words.filter(is_word).count()
        });
        prose + code.sum::<usize>()
    }
}

/// Blanks, but the same line feeds.
fn blank(text: &str) -> Vec<u8> {
    let blank = |byte| if byte == b'\n' { b'\n' } else { b' ' };
    text.bytes().map(blank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A `b` c\n\nWords, `code` and 5 µs<!-- c --> [link](x.md#y).\n\n## Two\n\n```text\n1 ms\n```\n";

    #[test]
    fn prose_is_what_is_neither_code_nor_html_nor_a_target() {
        let markdown = Markdown::new(TEXT.to_owned());
        assert_eq!(markdown.prose.len(), TEXT.len());
        let words: Vec<&str> = markdown.prose.split_whitespace().collect();
        assert_eq!(
            words,
            ["A", "c", "Words,", "and", "5", "µs", "link", ".", "Two"]
        );
        assert_eq!(markdown.words(), 10);
    }

    #[test]
    fn everything_else_is_found_where_it_stands() {
        let markdown = Markdown::new(TEXT.to_owned());
        assert_eq!(markdown.headings[0].text, "A b c");
        assert_eq!(markdown.headings[1].level, 2);
        assert_eq!(markdown.links[0].to, "x.md#y");
        assert_eq!(markdown.line(markdown.links[0].start), 3);
        let code = &markdown.code[0];
        assert_eq!(code.info.as_deref(), Some("text"));
        assert_eq!(
            (code.content.as_str(), code.section.as_str()),
            ("1 ms\n", "Two")
        );
        assert_eq!(&TEXT[markdown.html[0].clone()], "<!-- c -->");
    }
}
