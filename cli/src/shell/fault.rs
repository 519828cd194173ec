//! What is wrong with a line, and where.

use std::fmt::Write;
use std::ops::Range;

/// A fault in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The bytes of the line that are wrong; none where it is no single word.
    pub span: Option<Range<usize>>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Fault {
    /// A fault of one word.
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            message: message.into(),
        }
    }

    /// A fault of no single word.
    pub fn whole(message: impl Into<String>) -> Self {
        Self {
            span: None,
            message: message.into(),
        }
    }

    /// The message and, where a word is wrong, the line with marks under that word.
    pub fn text(&self, line: &str) -> String {
        let mut text = self.message.clone();
        if let Some(span) = &self.span {
            let before = line[..span.start.min(line.len())].chars();
            let blank: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let wrong = line.get(span.clone()).unwrap_or_default().chars().count();
            let marks = "^".repeat(wrong.max(1));
            let _ = write!(text, "\n  {line}\n  {blank}{marks}");
        }
        text
    }
}

/// The word that was most likely meant.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |word: &str| strsim::damerau_levenshtein(&typed.to_lowercase(), word);
    known
        .into_iter()
        .map(|word| (distance(word), word))
        // Half of a word may be wrong, no more: a far-off guess only confuses.
        .filter(|(distance, word)| distance * 2 <= word.chars().count().max(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_under_the_word() {
        let fault = Fault::at(4..7, "no");
        assert_eq!(fault.text("add svc tcp"), "no\n  add svc tcp\n      ^^^");
        assert_eq!(Fault::at(3..3, "more").text("add"), "more\n  add\n     ^");
        assert_eq!(Fault::at(5..6, "x").text("ää b"), "x\n  ää b\n     ^");
        assert_eq!(Fault::whole("no").text("add"), "no");
    }

    #[test]
    fn nearest_words() {
        let known = ["service", "server", "scheduler"];
        let rows = [
            ("servce", Some("service")),
            ("sevrer", Some("server")),
            ("schduler", Some("scheduler")),
            ("weight", None),
            ("x", None),
        ];
        for (typed, expected) in rows {
            assert_eq!(nearest(typed, known), expected, "{typed}");
        }
    }
}
